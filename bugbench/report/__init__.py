"""Show what was found: one case in the terminal and as a figure, many as leaderboard and impact table."""
