"""Writing findings out as tests: for pytest, and in the style of SGLang's own."""
