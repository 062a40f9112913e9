"""The oracle: a function from a history to the next token, the models that compute it, and their drafts."""
