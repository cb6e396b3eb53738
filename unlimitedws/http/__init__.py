"""Plain HTTP on the port of the WebSockets: routes, files, health."""
