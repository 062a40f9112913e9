"""The oracle: a function from a token history to the next token, the models that compute it, and their drafts."""
