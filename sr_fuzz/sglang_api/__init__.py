"""Everything that a release of SGLang can change; no other room asks how releases differ."""
