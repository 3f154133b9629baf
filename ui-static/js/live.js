/*
 * What happens in the gateway, by server-sent events. When the stream ends it
 * is asked for again behind the last event that came, so nothing between is
 * lost. The server ends each stream after an hour; that alone is no fault.
 */
import { get, Problem, setReachable } from './api.js';

const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const KEPT = 1000;
const HIDDEN_MS = 10000;
export const TYPES = ['revision', 'pending', 'drift', 'relay', 'health', 'target', 'ejected', 'ban', 'bans', 'upstream',
	'drop', 'trace', 'trace_end', 'limit', 'missed', 'dropped'];
/* Of single flows: they come only to who asks for them. */
const FLOW_TYPES = ['flow_start', 'flow_end', 'flow_left_out'];

/* The newest events, oldest first: {number, type, data, at}. */
export const kept = [];
const listeners = new Set();
let source = null, opened = false, tries = 0, last = null, timer = null;

/* Calls back on each event of these types (none: all); returns what ends that. */
export function on(types, callback) {
	const entry = { types: types && new Set(types), callback };
	listeners.add(entry);
	return () => listeners.delete(entry);
}

function tell(event) {
	for (const { types, callback } of [...listeners])
		if (!types || types.has(event.type))
			callback(event);
}

function keep(message) {
	let data;
	try {
		data = JSON.parse(message.data);
	} catch {
		data = { text: message.data };
	}
	const event = { number: message.lastEventId, type: message.type, data, at: new Date() };
	kept.push(event);
	if (kept.length > KEPT)
		kept.splice(0, kept.length - KEPT);
	tell(event);
}

function take(message) {
	last = message.lastEventId || last;
	keep(message);
}

/* Single flows too, in a stream of their own, until what this returns is called. */
export function followFlows() {
	const stream = new EventSource(`/api/v1/events?types=${FLOW_TYPES}`);
	for (const type of FLOW_TYPES)
		stream.addEventListener(type, keep);
	return () => stream.close();
}

async function again() {
	source?.close();
	source = null;
	clearTimeout(timer);
	const wait = RETRY_MS[Math.min(tries++, RETRY_MS.length - 1)];
	timer = setTimeout(async () => {
		try {
			await get('session'); /* asks for a log-in if the session is gone */
			open();
		} catch (error) {
			if (error instanceof Problem)
				setReachable(true);
			again();
		}
	}, wait);
}

function open() {
	source?.close();
	source = new EventSource(`/api/v1/events${last || opened ? `?after=${encodeURIComponent(last || 0)}` : ''}`);
	source.onopen = () => {
		const back = tries > 0;
		tries = 0;
		opened = true; /* from here on nothing may be lost, also where no event has come yet to go on from */
		setReachable(true);
		if (back)
			tell({ type: 'reconnected', data: {}, at: new Date() });
	};
	source.onerror = again;
	for (const type of TYPES)
		source.addEventListener(type, take);
}

function close() {
	clearTimeout(timer);
	source?.close();
	source = null;
}

/*
 * A browser has six connections to a server for all its tabs, and each stream is one: a page that nobody looks at gives
 * its own back, and reads on from there when it is looked at again.
 */
let wanted = false;

export function begin() {
	wanted = true;
	open();
}

export function end() {
	wanted = false;
	close();
}

function follow(seen) {
	clearTimeout(hiding);
	if (!wanted)
		return;
	if (seen && !source)
		open();
	else if (!seen)
		hiding = setTimeout(close, HIDDEN_MS);
}

let hiding = null;
document.addEventListener('visibilitychange', () => follow(!document.hidden));
window.addEventListener('pagehide', close);
window.addEventListener('pageshow', () => follow(true));
