-- From version 2 to 3: the client's source port, what moves the bytes, proxies in front of the gateway, how many flows a
-- target may have, more about health checks, what operators have said about targets, and where records of flows go.

CREATE TABLE listener_3 (
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
	mover TEXT NOT NULL DEFAULT 'auto' CHECK (mover IN ('auto', 'copy', 'splice', 'sockmap'))
) STRICT;
INSERT INTO listener_3 (id, revision, name, enabled, comment, protocol, interfaces, sources, destinations, ports, action, upstream, source_address, proxy_protocol, rate_limits, on_worker_down, connect_timeout_ms, idle_timeout_s, priority)
	SELECT id, revision, name, enabled, comment, protocol, interfaces, sources, destinations, ports, action, upstream, source_address, proxy_protocol, rate_limits, on_worker_down, connect_timeout_ms, idle_timeout_s, priority FROM listener;
-- Ids are never used again, those of deleted rows neither.
DELETE FROM sqlite_sequence WHERE name = 'listener_3';
INSERT INTO sqlite_sequence (name, seq) SELECT 'listener_3', seq FROM sqlite_sequence WHERE name = 'listener';
DROP TABLE listener;
ALTER TABLE listener_3 RENAME TO listener;
CREATE INDEX listener_upstream ON listener(upstream) WHERE upstream IS NOT NULL;

CREATE TABLE upstream_3 (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	algorithm TEXT NOT NULL DEFAULT 'round_robin' CHECK (algorithm IN ('round_robin', 'least_conn', 'random_two', 'source_hash')),
	health_type TEXT NOT NULL DEFAULT 'none' CHECK (health_type IN ('none', 'tcp', 'http')),
	health_interval_ms INTEGER NOT NULL DEFAULT 5000 CHECK (health_interval_ms BETWEEN 100 AND 600000),
	health_timeout_ms INTEGER NOT NULL DEFAULT 1000 CHECK (health_timeout_ms BETWEEN 10 AND 60000),
	health_rise INTEGER NOT NULL DEFAULT 2 CHECK (health_rise BETWEEN 1 AND 100),
	health_fall INTEGER NOT NULL DEFAULT 3 CHECK (health_fall BETWEEN 1 AND 100),
	health_http_path TEXT NOT NULL DEFAULT '/' CHECK (length(CAST(health_http_path AS BLOB)) <= 255),
	health_http_status INTEGER NOT NULL DEFAULT 0 CHECK (health_http_status BETWEEN 0 AND 599),
	health_http_status_max INTEGER NOT NULL DEFAULT 0 CHECK (health_http_status_max BETWEEN 0 AND 599),
	health_http_method TEXT NOT NULL DEFAULT 'GET' CHECK (health_http_method IN ('GET', 'HEAD')),
	health_http_host TEXT NOT NULL DEFAULT '' CHECK (length(CAST(health_http_host AS BLOB)) <= 255),
	health_http_body TEXT NOT NULL DEFAULT '' CHECK (length(CAST(health_http_body AS BLOB)) <= 255),
	health_port INTEGER NOT NULL DEFAULT 0 CHECK (health_port BETWEEN 0 AND 65535),
	quorum INTEGER NOT NULL DEFAULT 1 CHECK (quorum BETWEEN 1 AND 1024),
	max_retries INTEGER NOT NULL DEFAULT 0 CHECK (max_retries BETWEEN 0 AND 10),
	passive_failures INTEGER NOT NULL DEFAULT 0 CHECK (passive_failures BETWEEN 0 AND 1000),
	slow_start_s INTEGER NOT NULL DEFAULT 0 CHECK (slow_start_s BETWEEN 0 AND 3600),
	on_down TEXT NOT NULL DEFAULT 'keep' CHECK (on_down IN ('keep', 'reset'))
) STRICT;
INSERT INTO upstream_3 (id, revision, name, comment, algorithm, health_type, health_interval_ms, health_timeout_ms, health_rise, health_fall, health_http_path, health_http_status, max_retries, passive_failures, slow_start_s, on_down)
	SELECT id, revision, name, comment, algorithm, health_type, health_interval_ms, health_timeout_ms, health_rise, health_fall, health_http_path, health_http_status, max_retries, passive_failures, slow_start_s, on_down FROM upstream;
DELETE FROM sqlite_sequence WHERE name = 'upstream_3';
INSERT INTO sqlite_sequence (name, seq) SELECT 'upstream_3', seq FROM sqlite_sequence WHERE name = 'upstream';
DROP TABLE upstream;
ALTER TABLE upstream_3 RENAME TO upstream;
CREATE TABLE settings_3 (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (name = 'settings'),
	drift TEXT NOT NULL DEFAULT 'heal' CHECK (drift IN ('heal', 'alert')),
	ban_exempt TEXT REFERENCES address_set(name) ON DELETE RESTRICT,
	revisions_kept INTEGER NOT NULL DEFAULT 10000 CHECK (revisions_kept BETWEEN 10 AND 100000),
	flow_log_destination TEXT NOT NULL DEFAULT 'off' CHECK (flow_log_destination IN ('off', 'file', 'journal')),
	flow_log_file TEXT NOT NULL DEFAULT 'flows.jsonl' CHECK (length(CAST(flow_log_file AS BLOB)) <= 64),
	flow_log_events TEXT NOT NULL DEFAULT 'end' CHECK (flow_log_events IN ('end', 'start', 'both')),
	flow_log_sample INTEGER NOT NULL DEFAULT 1 CHECK (flow_log_sample BETWEEN 1 AND 1000000),
	flow_log_fields TEXT NOT NULL DEFAULT '[]' CHECK (flow_log_fields GLOB '[[]*]' AND length(flow_log_fields) <= 6477),
	talkers_kept INTEGER NOT NULL DEFAULT 16384 CHECK (talkers_kept BETWEEN 0 AND 262144)
) STRICT;
INSERT INTO settings_3 (id, revision, name, drift, revisions_kept)
	SELECT id, revision, name, drift, revisions_kept FROM settings;
DELETE FROM sqlite_sequence WHERE name = 'settings_3';
INSERT INTO sqlite_sequence (name, seq) SELECT 'settings_3', seq FROM sqlite_sequence WHERE name = 'settings';
DROP TABLE settings;
ALTER TABLE settings_3 RENAME TO settings;
CREATE INDEX settings_ban_exempt ON settings(ban_exempt) WHERE ban_exempt IS NOT NULL;

CREATE TABLE rate_limit_3 (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	key TEXT NOT NULL DEFAULT 'source' CHECK (key IN ('source', 'source_prefix', 'listener', 'flow')),
	prefix_v4 INTEGER NOT NULL DEFAULT 24 CHECK (prefix_v4 BETWEEN 1 AND 32),
	prefix_v6 INTEGER NOT NULL DEFAULT 64 CHECK (prefix_v6 BETWEEN 1 AND 128),
	metric TEXT NOT NULL DEFAULT 'new_connections' CHECK (metric IN ('new_connections', 'concurrent_connections', 'packets', 'bytes')),
	rate INTEGER NOT NULL DEFAULT 1 CHECK (rate BETWEEN 1 AND 1000000000000),
	per TEXT NOT NULL DEFAULT 'second' CHECK (per IN ('second', 'minute')),
	burst INTEGER NOT NULL DEFAULT 0 CHECK (burst BETWEEN 0 AND 1000000000000),
	action TEXT NOT NULL DEFAULT 'drop' CHECK (action IN ('drop', 'reject', 'ban', 'shape')),
	ban_s INTEGER NOT NULL DEFAULT 60 CHECK (ban_s BETWEEN 1 AND 2592000),
	mode TEXT NOT NULL DEFAULT 'enforce' CHECK (mode IN ('enforce', 'shadow')),
	escalate_after INTEGER NOT NULL DEFAULT 0 CHECK (escalate_after BETWEEN 0 AND 1000000),
	escalate_ban_s INTEGER NOT NULL DEFAULT 600 CHECK (escalate_ban_s BETWEEN 1 AND 2592000)
) STRICT;
INSERT INTO rate_limit_3 (id, revision, name, comment, key, prefix_v4, prefix_v6, metric, rate, per, burst, action, ban_s, mode)
	SELECT id, revision, name, comment, key, prefix_v4, prefix_v6, metric, rate, per, burst, action, ban_s, mode FROM rate_limit;
DELETE FROM sqlite_sequence WHERE name = 'rate_limit_3';
INSERT INTO sqlite_sequence (name, seq) SELECT 'rate_limit_3', seq FROM sqlite_sequence WHERE name = 'rate_limit';
DROP TABLE rate_limit;
ALTER TABLE rate_limit_3 RENAME TO rate_limit;

-- Who is shut out, and until when.
CREATE TABLE ban (
	prefix TEXT PRIMARY KEY,
	reason TEXT NOT NULL,
	actor TEXT NOT NULL,
	rate_limit TEXT NOT NULL, -- by which; empty: by hand
	created_at INTEGER NOT NULL, -- seconds since 1970, UTC
	expires_at INTEGER, -- NULL: when it is lifted
	placement TEXT NOT NULL CHECK (placement IN ('nft', 'xdp')) -- xdp: at the prefilters too
) STRICT, WITHOUT ROWID;

CREATE TABLE target_3 (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	parent INTEGER NOT NULL REFERENCES upstream(id) ON DELETE CASCADE,
	position INTEGER NOT NULL,
	address TEXT NOT NULL CHECK (length(address) BETWEEN 2 AND 45),
	port INTEGER NOT NULL DEFAULT 0 CHECK (port BETWEEN 0 AND 65535),
	weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 256),
	backup INTEGER NOT NULL DEFAULT 0 CHECK (backup IN (0, 1)),
	max_connections INTEGER NOT NULL DEFAULT 0 CHECK (max_connections BETWEEN 0 AND 16777216),
	admin_state TEXT NOT NULL DEFAULT 'up' CHECK (admin_state IN ('up', 'drain', 'down')),
	UNIQUE (parent, address, port)
) STRICT;
INSERT INTO target_3 (id, revision, parent, position, address, port, weight, backup, admin_state)
	SELECT id, revision, parent, position, address, port, weight, backup, admin_state FROM target;
DELETE FROM sqlite_sequence WHERE name = 'target_3';
INSERT INTO sqlite_sequence (name, seq) SELECT 'target_3', seq FROM sqlite_sequence WHERE name = 'target';
DROP TABLE target;
ALTER TABLE target_3 RENAME TO target;

CREATE TABLE target_runtime (
	target INTEGER PRIMARY KEY REFERENCES target(id) ON DELETE CASCADE,
	admin_state INTEGER CHECK (admin_state BETWEEN 0 AND 2), -- up, drain, down
	weight INTEGER CHECK (weight BETWEEN 0 AND 256),
	over_admin INTEGER NOT NULL, -- what was configured then
	over_weight INTEGER NOT NULL,
	drain_deadline INTEGER, -- seconds since 1970, UTC
	reset_per_s INTEGER NOT NULL CHECK (reset_per_s BETWEEN 0 AND 10000),
	said_at INTEGER NOT NULL, -- seconds since 1970, UTC
	actor TEXT NOT NULL
) STRICT;
