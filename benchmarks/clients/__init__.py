"""What asks and uploads while a figure is measured."""
