"""Contents of the index: read, browse, thumbnails, live news of them."""
