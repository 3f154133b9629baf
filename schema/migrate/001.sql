-- The database of gatewayd. Made by gwgen from schema/*.def; not edited by hand.
-- Run in one transaction, with foreign_keys on.
PRAGMA application_id = 1735877730;
PRAGMA user_version = 1;

-- One row per change of the configuration.
CREATE TABLE revision (
	n INTEGER PRIMARY KEY CHECK (n > 0),
	created_at INTEGER NOT NULL, -- seconds since 1970, UTC
	actor TEXT NOT NULL,
	summary TEXT NOT NULL,
	config_hash TEXT
) STRICT;

-- Single values that are no resource.
CREATE TABLE meta (
	key TEXT PRIMARY KEY NOT NULL,
	value TEXT NOT NULL
) STRICT;

-- Pools of targets that listeners relay to.
CREATE TABLE upstream (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	algorithm TEXT NOT NULL DEFAULT 'round_robin' CHECK (algorithm IN ('round_robin'))
) STRICT;

-- The servers of an upstream.
CREATE TABLE target (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	parent INTEGER NOT NULL REFERENCES upstream(id) ON DELETE CASCADE,
	position INTEGER NOT NULL,
	address TEXT NOT NULL CHECK (length(address) BETWEEN 2 AND 45),
	port INTEGER NOT NULL DEFAULT 0 CHECK (port BETWEEN 0 AND 65535),
	weight INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 0 AND 256),
	admin_state TEXT NOT NULL DEFAULT 'up' CHECK (admin_state IN ('up', 'drain', 'down')),
	UNIQUE (parent, address, port)
) STRICT;

-- What is intercepted and what happens to it.
CREATE TABLE listener (
	id INTEGER PRIMARY KEY AUTOINCREMENT CHECK (id BETWEEN 1 AND 4294967295),
	revision INTEGER NOT NULL CHECK (revision >= 0),
	name TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 63 AND name NOT GLOB '*[^a-z0-9-]*' AND name NOT GLOB '-*' AND name NOT GLOB '*-'),
	enabled INTEGER NOT NULL DEFAULT 1 CHECK (enabled IN (0, 1)),
	comment TEXT NOT NULL DEFAULT '' CHECK (length(CAST(comment AS BLOB)) <= 255),
	protocol TEXT NOT NULL DEFAULT 'tcp' CHECK (protocol IN ('tcp', 'udp')),
	interfaces TEXT NOT NULL DEFAULT '[]' CHECK (interfaces GLOB '[[]*]' AND length(interfaces) <= 3682),
	sources TEXT NOT NULL DEFAULT '[]' CHECK (sources GLOB '[[]*]' AND length(sources) <= 7362),
	destinations TEXT NOT NULL DEFAULT '[]' CHECK (destinations GLOB '[[]*]' AND length(destinations) <= 7362),
	ports TEXT NOT NULL DEFAULT '[]' CHECK (ports GLOB '[[]*]' AND length(ports) <= 7362),
	action TEXT NOT NULL DEFAULT 'relay' CHECK (action IN ('relay', 'reject', 'drop', 'bypass')),
	upstream TEXT REFERENCES upstream(name) ON DELETE RESTRICT,
	source_address TEXT NOT NULL DEFAULT 'client' CHECK (source_address IN ('client', 'gateway')),
	on_worker_down TEXT NOT NULL DEFAULT 'drop' CHECK (on_worker_down IN ('drop', 'direct')),
	connect_timeout_ms INTEGER NOT NULL DEFAULT 5000 CHECK (connect_timeout_ms BETWEEN 10 AND 600000),
	idle_timeout_s INTEGER NOT NULL DEFAULT 3600 CHECK (idle_timeout_s BETWEEN 1 AND 604800),
	priority INTEGER NOT NULL DEFAULT 100 CHECK (priority BETWEEN 0 AND 65535)
) STRICT;
CREATE INDEX listener_upstream ON listener(upstream) WHERE upstream IS NOT NULL;
