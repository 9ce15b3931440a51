"""The command line, the demo, and the training of the demo's model."""

from pkgutil import extend_path

# The distribution `cliptide-client` brings `cliptide.client`, and it may lie in another folder of the path.
__path__ = extend_path(__path__, __name__)
