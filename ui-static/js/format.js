/* Numbers and times for people. */

const STEPS = [['P', 1e15], ['T', 1e12], ['G', 1e9], ['M', 1e6], ['k', 1e3]];

function scaled(value, unit, space = '\u00a0') {
	const size = Math.abs(value);
	for (const [letter, step] of STEPS)
		if (size >= step)
			return `${(value / step).toFixed(size >= step * 100 ? 0 : 1)}${space}${letter}${unit}`;
	return `${Number.isInteger(value) || size >= 100 ? Math.round(value) : value.toFixed(1)}${unit ? space + unit : ''}`;
}

export const count = (value) => scaled(value ?? 0, '');
export const several = (value, word) => `${count(value)} ${word}${value === 1 ? '' : 's'}`;
export const bytes = (value) => scaled(value ?? 0, 'B');
export const bits = (bytesPerSecond) => scaled((bytesPerSecond ?? 0) * 8, 'bit/s');
export const perSecond = (value) => `${scaled(value ?? 0, '')}/s`;

/* 1234 ms as "1.2 s", 90061 s as "1 d 1 h". */
export function duration(seconds) {
	if (seconds === null || seconds === undefined)
		return '';
	if (seconds < 1)
		return `${Math.round(seconds * 1000)}\u00a0ms`;
	if (seconds < 60)
		return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)}\u00a0s`;
	const parts = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
	const first = parts.findIndex(([, size]) => seconds >= size);
	let rest = Math.round(seconds);
	return parts.slice(first, first + 2).map(([word, size]) => {
		const n = Math.floor(rest / size);
		rest -= n * size;
		return n ? `${n}\u00a0${word}` : '';
	}).filter(Boolean).join(' ');
}

export const micros = (us) => (us === null || us === undefined ? '' : us < 1000 ? `${us}\u00a0µs` : duration(us / 1e6));

/* "2026-01-31T12:00:00Z" in the reader's own time. */
export function when(text) {
	const date = new Date(text);
	if (!text || Number.isNaN(date.getTime()))
		return text || '';
	return date.toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' });
}

export const clock = (date) => date.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });

/* {address, port} as "10.0.0.1:80", "[fd00::1]:80". */
export function endpoint(end) {
	if (!end || !end.address)
		return '';
	return end.address.includes(':') ? `[${end.address}]:${end.port}` : `${end.address}:${end.port}`;
}

/* Any JSON value in one line. */
export function compact(value) {
	if (value === null || value === undefined)
		return '—';
	if (Array.isArray(value))
		return value.length ? value.map((one) => (typeof one === 'object' ? JSON.stringify(one) : one)).join(', ') : '(empty)';
	if (typeof value === 'object')
		return JSON.stringify(value);
	return value === '' ? '(empty)' : String(value);
}

/* snake_case as words. */
export const words = (text) => String(text).replaceAll('_', ' ');
