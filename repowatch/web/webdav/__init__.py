"""WebDAV below a repository, on WsgiDAV."""
