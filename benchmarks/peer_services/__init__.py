"""Other systems that search vectors, each as a server process that the figure `peers` asks."""
