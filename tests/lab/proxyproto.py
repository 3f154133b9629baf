"""PROXY headers: made and read by the specification, and HAProxy and nginx that send and take them."""

import ipaddress
import struct
from pathlib import Path

from lab.servers import wait_listening

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
STREAM, DATAGRAM = 1, 2
NGINX_STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
HAPROXY = """
global
    maxconn 2000
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
"""
# What is told of the client and of where it went, as the receivers see it.
HAPROXY_TELLS = """
frontend tells
    mode http
    bind {address}:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst] %[dst_port]"
"""
HAPROXY_STRIPS = """
listen strips
    mode tcp
    bind {address}:{port} accept-proxy
    server it {address}:{to}
"""
HAPROXY_SENDS = """
listen sends{port}
    mode tcp
    bind {address}:{port}
    server it {to} {how}
"""
NGINX = """
daemon off;
user root;
pid {directory}/{name}.pid;
error_log {directory}/{name}.error.log warn;
load_module {module};
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
    scgi_temp_path {directory}/{name}-scgi;
{http}
}}
stream {{
{stream}
}}
"""
NGINX_TELLS = 'listen {address}:{port} proxy_protocol; return "$proxy_protocol_addr $proxy_protocol_port ' \
              '$proxy_protocol_server_addr $proxy_protocol_server_port";'


def write(version, source, source_port, destination, destination_port, kind=STREAM):
    """The header of a version."""
    source, destination = ipaddress.ip_address(source), ipaddress.ip_address(destination)
    if version == 1:
        return (f"PROXY TCP{source.version} {source} {destination} {source_port} {destination_port}\r\n").encode()
    body = source.packed + destination.packed + struct.pack(">HH", source_port, destination_port)
    family = 1 if source.version == 4 else 2
    return SIGNATURE + bytes([0x21, family << 4 | kind]) + struct.pack(">H", len(body)) + body


def local():
    """A header of version 2 that says that the proxy speaks for itself."""
    return SIGNATURE + bytes([0x20, 0, 0, 0])


def split(data):
    """((source, port, destination, port), kind, rest) of bytes that begin with a header, or None if they do not."""
    if data.startswith(b"PROXY ") and b"\r\n" in data:
        line, rest = data.split(b"\r\n", 1)
        words = line.decode().split(" ")
        assert words[1] in ("TCP4", "TCP6") and len(words) == 6, line
        return (words[2], int(words[4]), words[3], int(words[5])), STREAM, rest
    if not data.startswith(SIGNATURE) or len(data) < 16:
        return None
    assert data[12] == 0x21, data
    size = {1: 4, 2: 16}[data[13] >> 4]
    length, = struct.unpack(">H", data[14:16])
    assert length == 2 * size + 4, data
    if len(data) < 16 + length:
        return None
    source, destination = (str(ipaddress.ip_address(data[at:at + size])) for at in (16, 16 + size))
    ports = struct.unpack(">HH", data[16 + 2 * size:20 + 2 * size])
    return (source, ports[0], destination, ports[1]), data[13] & 15, data[16 + length:]


def read(connection):
    """Reads a header of either version, and nothing behind it; (source, port, destination, port)."""
    data = b""
    while (found := split(data)) is None:
        byte = connection.recv(1)
        if not byte:
            raise OSError(f"the connection ended in its header: {data}")
        data += byte
    return found[0]


def haproxy(lab, host, name, text, port):
    """HAProxy with these sections; waits for the port."""
    config = lab.directory / f"{name}.cfg"
    config.write_text(HAPROXY + text)
    process = lab.start(host, name, "/usr/sbin/haproxy", "-db", "-f", config)
    wait_listening(host, port)
    return process


def nginx(lab, host, name, http, stream, port):
    """nginx with these servers; waits for the port."""
    config = lab.directory / f"{name}.conf"
    config.write_text(NGINX.format(directory=lab.directory, name=name, module=NGINX_STREAM, http=http, stream=stream))
    process = lab.start(host, name, "/usr/sbin/nginx", "-e", lab.directory / f"{name}.error.log", "-c", config)
    wait_listening(host, port)
    return process
