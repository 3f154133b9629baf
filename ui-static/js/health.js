/*
 * What is observed of targets, and what is wrong with the gateway, in words.
 * Reads what the daemon tells leniently: parts of it are younger than others.
 */
import { segment } from './api.js';

/* What the API calls it; port 0 is the packet's own. */
export const targetName = (t) => (t.address.includes(':') ? `[${t.address}]:${t.port}` : `${t.address}:${t.port}`);
/* What people read. */
export const targetLabel = (t) => (t.port ? targetName(t) : `${t.address}, same port`);

/* The word that a document has for the health of a target, wherever it has it. */
export function healthOf(target) {
	const told = target.health ?? target.observed ?? target.state;
	const word = typeof told === 'object' && told ? told.state ?? told.status : told;
	return word === undefined || word === null ? null : String(word);
}

/* {word, kind} of a target: what it is told to be comes before what it is seen to be. */
export function targetState(target) {
	const seen = healthOf(target);
	if (target.admin_state === 'down')
		return { word: 'down', kind: 'idle' };
	if (target.admin_state === 'drain')
		return { word: 'draining', kind: 'warn' };
	if (seen === 'down')
		return { word: 'failed', kind: 'bad' };
	if (target.ejected_until)
		return { word: 'left out', kind: 'bad' };
	return { word: 'up', kind: 'good' };
}

function ofStatus(status) {
	const found = [], add = (kind, text, href, link) => found.push({ kind, text, href, link });
	const { relay, drift, applied } = status;

	if (status.pending)
		add('warn', `Change ${status.pending.revision} waits to be kept; it is taken back at ${new Date(status.pending.deadline).toLocaleTimeString()}.`, `#/revisions/${status.pending.revision}`, 'See the change');
	if (drift?.state === 'present')
		add('bad', `Somebody else changed our rules or routes: ${drift.last?.detail || ''} (${drift.last?.process || 'unknown process'}).`, '#/settings', 'What happens then: setting “drift”');
	if (relay.state !== 'running')
		add('bad', `The relay is ${relay.state}: ${relay.direct ? 'listeners with on_worker_down direct go past it, others drop.' : 'new connections wait or are dropped.'}`, '#/doctor', 'Ask the doctor');
	if (relay.overloaded)
		add('bad', 'The relay is overloaded: new connections are refused or go past it.', '#/flows', 'See the flows');
	for (const [plane, revision] of Object.entries(applied))
		if (revision !== status.revision && revision !== null)
			add('bad', `${plane} has revision ${revision} in force, not ${status.revision}.`, '#/doctor', 'Ask the doctor');
	for (const one of status.upstreams?.not_up || [])
		add('bad', `Upstream ${one.name} is ${one.state}: ${one.usable} of ${one.targets} targets can be used.`, `#/upstreams/${segment(one.name)}`, 'Open the upstream');
	for (const one of status.waiting || [])
		add('warn', `Listener ${one.listener} waits for the interface ${one.interface}, which is not there.`, `#/listeners/${segment(one.listener)}`, 'Open the listener');
	for (const one of status.prefilters || [])
		if (one.syn_cookies?.state === 'engaged')
			add('warn', `More connection requests come in at ${one.interface} than the listeners take: they are answered with SYN cookies.`, `#/prefilters/${segment(one.interface)}`, 'Open the prefilter');
	for (const one of status.warnings || [])
		add('warn', one.detail || one.code);
	return found;
}

const SIGNS = [
	['refused', 'connections got no flow', '#/'],
	['connect_failed', 'connects to targets failed', '#/upstreams'],
];

/* The last minute of the history. */
function ofHistory(history) {
	if (!history)
		return [];
	const from = Date.now() / 1000 - 60, rows = history.rows.filter((row) => row[0] > from);
	return SIGNS.flatMap(([column, text, href]) => {
		const at = history.columns.indexOf(column), sum = rows.reduce((all, row) => all + row[at], 0);
		return at >= 0 && sum ? [{ kind: 'warn', text: `In the last minute ${sum} ${text}.`, href, link: 'See where' }] : [];
	});
}

function ofTargets(upstreams) {
	return (upstreams || []).flatMap((upstream) => {
		const bad = upstream.targets.filter((target) => targetState(target).kind === 'bad');
		const usable = upstream.targets.filter((target) => ['good', 'idle'].includes(targetState(target).kind) && target.admin_state !== 'down');
		const href = `#/upstreams/${segment(upstream.name)}`;
		const found = bad.map((target) => ({ kind: 'bad', text: `Target ${targetLabel(target)} of ${upstream.name} is ${targetState(target).word}${target.health?.reason ? `: ${target.health.reason}` : ''}.`, href, link: 'Open the upstream' }));
		if (!usable.length)
			found.push({ kind: 'bad', text: `Upstream ${upstream.name} has no target in service.`, href, link: 'Open the upstream' });
		return found;
	});
}

/* The checks in whatever shape the doctor tells them. */
export function checksOf(doctor) {
	return Array.isArray(doctor) ? doctor : doctor?.checks ?? doctor?.items ?? [];
}

const ofDoctor = (doctor) => checksOf(doctor).filter((check) => check.ok === false)
	.map((check) => ({ kind: 'bad', text: check.detail || check.name || check.check, href: '#/doctor', link: 'How to mend it' }));

/* Everything that is wrong: [{kind, text, href, link}], worst first, each text once. */
export function problems({ status, history, upstreams, doctor }) {
	const all = [...ofStatus(status), ...ofTargets(upstreams), ...ofDoctor(doctor), ...ofHistory(history)];
	const seen = new Set();
	return all.filter((one) => !seen.has(one.text) && seen.add(one.text))
		.sort((a, b) => (a.kind === 'bad' ? 0 : 1) - (b.kind === 'bad' ? 0 : 1));
}
