"""The encoder: its protocol, its settings, and how pictures and texts are prepared for it."""
