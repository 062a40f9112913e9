"""sr_fuzz: a property-based fuzzer for the SGLang scheduler."""

__version__ = "0.1.0"
