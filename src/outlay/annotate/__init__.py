"""The annotation side of a campaign: requests go out to a page or a tool, answers come back and are checked before anything is kept."""
