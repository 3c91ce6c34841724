"""Changes that apply to any noise schedule: one file a change."""
