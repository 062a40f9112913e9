"""Running scripts on SGLang's own scripted runtime."""
