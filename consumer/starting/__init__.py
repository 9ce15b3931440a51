"""What a consumer does before it reads: settings become options, and disk, broker and registry are opened."""
