"""Playing on SGLang's own scripted runtime."""
