"""Writers of findings as tests: for pytest, and in the style of SGLang's own tests."""
