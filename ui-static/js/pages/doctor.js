/* The gateway looks at itself, and says how to mend what it finds. */
import { getIfThere, may, NoAnswer, Problem, request } from '../api.js';
import { badge, button, copyButton, fill, h, toast } from '../dom.js';
import { words } from '../format.js';
import { checksOf } from '../health.js';
import { head, into, notThere } from '../page.js';

const stateOf = (check) => check.state ?? (check.ok === true ? 'ok' : check.ok === false ? 'wrong' : 'not known');
const kindOf = (check) => (check.ok === true ? 'good' : check.ok === false ? (/warn/.test(check.severity ?? check.level ?? '') ? 'warn' : 'bad') : 'idle');

function card(check) {
	return h('li', { class: `check-card ${kindOf(check)}` }, h('div', { class: 'row' }, badge(stateOf(check), kindOf(check)), h('strong', {}, words(check.name ?? check.check ?? check.id ?? ''))),
		check.detail ? h('p', {}, check.detail) : null,
		check.fix && !check.ok ? h('div', { class: 'text-box' }, copyButton(check.fix), h('pre', { tabIndex: 0, 'aria-label': 'How to mend it', role: 'region' }, check.fix)) : null);
}

/* Long enough for the first ones: two connects that may wait 2.5 s each. */
const PROBE_MS = 6000;

async function probe() {
	try {
		const { data } = await request('POST', 'doctor/probe');
		toast(data.targets ? `The ways back of ${data.targets} targets are probed.` : 'No client was seen yet, so there is nothing to probe.', 'good');
	} catch (error) {
		if (!(error instanceof Problem || error instanceof NoAnswer))
			throw error;
		toast(error.message, 'bad');
	}
}

export default async function doctor({ content, scope }) {
	const place = h('div', { role: 'status' });
	const look = () => into(place, async () => {
		const told = await getIfThere('doctor');
		if (!told)
			return notThere('GET /api/v1/doctor');
		const checks = checksOf(told), bad = checks.filter((check) => check.ok === false);
		return [h('p', {}, bad.length ? `${bad.length} of ${checks.length} checks found something.` : `All ${checks.length} checks are fine.`),
			h('ul', { class: 'cards' }, [...bad, ...checks.filter((check) => check.ok !== false)].map(card))];
	});
	fill(content, head('Doctor', 'Kernel, routing, rights, neighbours: what could keep the gateway from working.', button('Look again', look),
		may('operator') ? button('Probe the ways back', () => probe().then(() => setTimeout(look, PROBE_MS))) : null), place);
	scope.on(['drift', 'relay', 'revision'], look);
	await look();
}
