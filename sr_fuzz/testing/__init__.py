"""Support for test suites: the pytest plugin, property checks, and SGLang's scripted runtime API."""
