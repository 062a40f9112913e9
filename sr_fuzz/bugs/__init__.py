"""Known bugs of SGLang."""
