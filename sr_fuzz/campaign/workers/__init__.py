"""The processes of a campaign that runs on several cores: searchers, and one that follows up what they see."""
