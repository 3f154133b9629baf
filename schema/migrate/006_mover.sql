-- From version 5 to 6: a listener's flows may have the kernel as their mover.

CREATE TABLE listener_6 (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	protocol TEXT NOT NULL DEFAULT 'tcp' CHECK (protocol IN ('tcp', 'udp')),
	interfaces TEXT NOT NULL DEFAULT '[]' CHECK (interfaces GLOB '[[]*]' AND length(interfaces) <= 8290),
	sources TEXT NOT NULL DEFAULT '[]' CHECK (sources GLOB '[[]*]' AND length(sources) <= 16578),
	destinations TEXT NOT NULL DEFAULT '[]' CHECK (destinations GLOB '[[]*]' AND length(destinations) <= 16578),
	ports TEXT NOT NULL DEFAULT '[]' CHECK (ports GLOB '[[]*]' AND length(ports) <= 16578),
	action TEXT NOT NULL DEFAULT 'relay' CHECK (action IN ('relay', 'reject', 'drop', 'bypass')),
	upstream TEXT REFERENCES upstream(name) ON DELETE RESTRICT,
	source_address TEXT NOT NULL DEFAULT 'client' CHECK (source_address IN ('client', 'gateway')),
	source_port TEXT NOT NULL DEFAULT 'keep' CHECK (source_port IN ('keep', 'any')),
	proxy_protocol TEXT NOT NULL DEFAULT 'off' CHECK (proxy_protocol IN ('off', 'v1', 'v2')),
	accept_proxy_protocol TEXT NOT NULL DEFAULT '[]' CHECK (accept_proxy_protocol GLOB '[[]*]' AND length(accept_proxy_protocol) <= 16578),
	rate_limits TEXT NOT NULL DEFAULT '[]' CHECK (rate_limits GLOB '[[]*]' AND length(rate_limits) <= 4146),
	on_worker_down TEXT NOT NULL DEFAULT 'drop' CHECK (on_worker_down IN ('drop', 'direct')),
	connect_timeout_ms INTEGER NOT NULL DEFAULT 5000 CHECK (connect_timeout_ms BETWEEN 10 AND 600000),
	idle_timeout_s INTEGER NOT NULL DEFAULT 3600 CHECK (idle_timeout_s BETWEEN 1 AND 604800),
	priority INTEGER NOT NULL DEFAULT 100 CHECK (priority BETWEEN 0 AND 65535),
	mover TEXT NOT NULL DEFAULT 'auto' CHECK (mover IN ('auto', 'copy', 'splice', 'sockmap', 'kernel'))
) STRICT;
INSERT INTO listener_6 (id, revision, name, enabled, comment, protocol, interfaces, sources, destinations, ports, action, upstream, source_address, source_port, proxy_protocol, accept_proxy_protocol, rate_limits, on_worker_down, connect_timeout_ms, idle_timeout_s, priority, mover)
	SELECT id, revision, name, enabled, comment, protocol, interfaces, sources, destinations, ports, action, upstream, source_address, source_port, proxy_protocol, accept_proxy_protocol, rate_limits, on_worker_down, connect_timeout_ms, idle_timeout_s, priority, mover FROM listener;
-- Ids are never used again, those of deleted rows neither.
DELETE FROM sqlite_sequence WHERE name = 'listener_6';
INSERT INTO sqlite_sequence (name, seq) SELECT 'listener_6', seq FROM sqlite_sequence WHERE name = 'listener';
DROP TABLE listener;
ALTER TABLE listener_6 RENAME TO listener;
CREATE INDEX listener_upstream ON listener(upstream) WHERE upstream IS NOT NULL;
