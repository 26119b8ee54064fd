"""How bytes come and go: connections, heads, bodies, answers; it knows nothing of repositories."""
