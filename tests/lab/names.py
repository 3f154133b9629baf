"""Servers of TLS names: nginx, with a certificate for all of them from an authority that is made here."""

from lab.netns import run
from lab.servers import wait_listening

NGINX = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
user root;
events {{ worker_connections 1000; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type text/plain;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {directory}/names.crt;
    ssl_certificate_key {directory}/names.key;
    server {{
        listen 0.0.0.0:{port} ssl;
        listen [::]:{port} ssl;
        root {directory};
        location = /whoami {{
            add_header Access-Control-Allow-Origin *;
            return 200 "$ssl_server_name at $server_addr sees $remote_addr by $ssl_protocol\\n";
        }}
        location = /page.html {{ default_type text/html; }}
        location = /stream {{ limit_rate 1k; }}
    }}
}}
"""


class Names:
    """nginx on every address of a host: /whoami names the server and the client, /stream does not end soon, and
    /page.html is what the test has put there.

    `authority` is the file that clients are to trust."""

    def __init__(self, lab, host, port, names):
        self.directory = lab.directory / f"names{port}"
        self.directory.mkdir(exist_ok=True)
        self.authority = self.directory / "authority.crt"
        self._certify(names)
        (self.directory / "stream").write_bytes(b"data: 0123456789\n" * 100000)
        config = self.directory / "nginx.conf"
        config.write_text(NGINX.format(directory=self.directory, port=port))
        self.process = lab.start(host, f"names{port}", "/usr/sbin/nginx", "-e", self.directory / "error.log", "-c", config)
        wait_listening(host, port)

    def _certify(self, names):
        """The authority's certificate, and one of it for the names."""
        new = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        key = self.directory / "authority.key"
        run(*new, "-subj", "/CN=authority of the lab", "-keyout", key, "-out", self.authority)
        run(*new, "-subj", "/CN=lab", "-addext", "subjectAltName=" + ",".join(f"DNS:{name}" for name in names),
            "-addext", "basicConstraints=critical,CA:false", "-CA", self.authority, "-CAkey", key,
            "-keyout", self.directory / "names.key", "-out", self.directory / "names.crt")
        # Clients that trust a key rather than a file need the authority in what the server shows.
        with open(self.directory / "names.crt", "ab") as chain:
            chain.write(self.authority.read_bytes())

    def stop(self):
        """Ends nginx."""
        self.process.stop()
