/*
 * The REST API: requests by session cookie, with the CSRF header on writes,
 * and problem documents as exceptions. When the session has ended, the request
 * waits for a new log-in and is then sent again, so that no form is lost.
 */

const BASE = '/api/v1/';
const TIMEOUT_MS = 15000;
const READS = new Set(['GET', 'HEAD']);

/* An answer that is no success. errors: [{pointer, code, detail}]. */
export class Problem extends Error {
	constructor(status, document) {
		super(document.detail || document.title || `The server answered ${status}.`);
		this.status = status;
		this.title = document.title || '';
		this.errors = document.errors || [];
	}
}

/* No answer at all. */
export class NoAnswer extends Error {}

export const session = { actor: null, role: null, csrf: null, signIn: null };
export const connection = new EventTarget();
let reachable = true;

/* Whether requests are being answered; tells those who listen to "change". */
export function setReachable(now) {
	if (now === reachable)
		return;
	reachable = now;
	connection.dispatchEvent(new Event('change'));
}
export const isReachable = () => reachable;

export const may = (role) => {
	const order = ['viewer', 'operator', 'admin'];
	return order.indexOf(session.role) >= order.indexOf(role);
};

async function send(method, path, options) {
	const headers = { Accept: 'application/json, application/problem+json, text/plain', ...options.headers };
	let body;

	if (!READS.has(method) && session.csrf)
		headers['X-CSRF-Token'] = session.csrf;
	if (options.text !== undefined) {
		headers['Content-Type'] = 'text/plain';
		body = options.text;
	} else if (options.body !== undefined) {
		headers['Content-Type'] = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
		body = JSON.stringify(options.body);
	}
	try {
		const answer = await fetch(path.startsWith('/') ? path : BASE + path, {
			method, headers, body, credentials: 'same-origin', redirect: 'error',
			signal: AbortSignal.timeout(options.timeout || TIMEOUT_MS),
		});
		setReachable(true);
		return answer;
	} catch (error) {
		setReachable(false);
		throw new NoAnswer(`The gateway does not answer (${error.name}).`);
	}
}

async function parse(answer) {
	const type = answer.headers.get('Content-Type') || '';
	if (answer.status === 204)
		return null;
	return type.includes('json') ? answer.json() : answer.text();
}

/* {data, etag, headers, status}. Options: body (JSON), text, headers, timeout, quiet (401 is an ordinary Problem). */
export async function request(method, path, options = {}) {
	let answer = await send(method, path, options);

	if (answer.status === 401 && !options.quiet && session.signIn) {
		await session.signIn();
		answer = await send(method, path, options);
	}
	let data;
	try {
		data = await parse(answer);
	} catch {
		throw new NoAnswer('The answer broke off.');
	}
	if (!answer.ok)
		throw new Problem(answer.status, data && typeof data === 'object' ? data : { detail: data });
	return { data, etag: answer.headers.get('ETag'), headers: answer.headers, status: answer.status };
}

export const get = async (path, options) => (await request('GET', path, options)).data;

/* A name as part of a path. */
export const segment = (name) => encodeURIComponent(name);

/* The document, or null where this daemon has no such path. */
export async function getIfThere(path) {
	try {
		return await get(path);
	} catch (error) {
		if (error instanceof Problem && error.status === 404)
			return null;
		throw error;
	}
}

function remember(document) {
	session.actor = document.actor;
	session.role = document.role;
	session.csrf = document.csrf_token;
}

/* Takes up the session of the cookie. False: there is none. */
export async function resume() {
	try {
		remember(await get('session', { quiet: true }));
		return true;
	} catch (error) {
		if (error instanceof Problem && error.status === 401)
			return false;
		throw error;
	}
}

export async function login(token) {
	remember((await request('POST', 'session', { body: { token }, quiet: true })).data);
}

export async function logout() {
	await request('DELETE', 'session', { quiet: true });
	session.actor = session.role = session.csrf = null;
}

let schema;
/* The table of one resource ("listener"). */
export async function resourceOf(name) {
	schema = schema || get('schema').catch((error) => { schema = null; throw error; });
	return (await schema).resources.find((one) => one.name === name);
}
