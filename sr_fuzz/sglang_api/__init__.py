"""Everything that may differ between releases of SGLang; no other room depends on these differences."""
