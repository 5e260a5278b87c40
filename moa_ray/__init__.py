"""Leave-one-compound-out sweeps of ImageNet backbones over microscopy screens, on Ray."""

__version__ = "0.1.0"
