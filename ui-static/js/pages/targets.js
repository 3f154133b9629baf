/* The targets of one upstream, live: what they are told to be, what they are seen to be, and draining in place. */
import { get, may, Problem, request, segment } from '../api.js';
import { badge, button, fill, h, toast } from '../dom.js';
import { bits, count, several } from '../format.js';
import { ask } from '../dialog.js';
import { save } from '../save.js';
import { targetLabel, targetName, targetState } from '../health.js';

const ACTIONS = [['up', 'Put in service'], ['drain', 'Drain'], ['down', 'Take down']];
const PAGE = 1000;

const canChange = (target) => may(target.configured ? 'operator' : 'admin');

/* The counters of these targets; pages are walked because they are in the order of their making. */
async function figures(upstream) {
	const found = new Map();
	for (let after = 0; after !== null;) {
		const page = await get(`stats/targets?limit=${PAGE}&after=${after}`);
		page.items.filter((one) => one.upstream === upstream).forEach((one) => found.set(one.target, one));
		after = page.next;
	}
	return found;
}

/* What an operator says of a target is no change of the configuration where the daemon keeps the two apart: then there is
 * no revision, and nothing to rehearse. */
async function change(upstream, target, state, read) {
	const title = `${targetLabel(target)} of ${upstream}: ${state}`, write = {
		method: 'PATCH', path: `upstreams/${segment(upstream)}/targets/${segment(targetName(target))}`, body: { admin_state: state },
	};
	try {
		if (!target.configured)
			await save(title, write);
		else if (await ask(title, `Said to the gateway as it runs; configured is ${target.configured.admin_state}.`, 'Apply', state === 'up' ? 'primary' : 'danger'))
			await request(write.method, write.path, write);
		await read();
	} catch (error) {
		toast(error instanceof Problem ? error.message : 'The gateway did not answer.', 'bad');
	}
}

/* "draining, 12 flows left" with a bar from where it began. */
function progress(target, seen, begun) {
	if (target.admin_state !== 'drain' || !seen)
		return null;
	const key = targetName(target), most = Math.max(begun.get(key) || 0, seen.flows_active);
	begun.set(key, most);
	return seen.flows_active ? h('div', { class: 'drain' }, h('progress', { max: String(most), value: most - seen.flows_active, 'aria-label': `Draining ${targetLabel(target)}` }), ` ${several(seen.flows_active, 'flow')} left`)
		: h('div', { class: 'drain' }, 'drained: no flows left');
}

function row(upstream, target, seen, begun, read) {
	const state = targetState(target);
	return h('tr', {}, h('th', { scope: 'row' }, targetLabel(target), target.backup ? badge('backup', 'idle') : null),
		h('td', {}, badge(state.word, state.kind), progress(target, seen, begun), target.health?.reason ? h('div', { class: 'hint' }, target.health.reason) : null),
		h('td', { class: 'end' }, String(target.weight)), h('td', { class: 'end' }, seen ? count(seen.flows_active) : '–'),
		h('td', { class: 'end' }, seen ? bits(seen.rates.bytes_to_target + seen.rates.bytes_to_client) : '–'),
		h('td', { class: 'end' }, seen ? count(seen.connect_failed) : '–'),
		canChange(target) ? h('td', {}, h('div', { class: 'row' }, ACTIONS.filter(([word]) => word !== target.admin_state)
			.map(([word, text]) => button(text, () => change(upstream, target, word, read), 'small', { 'aria-label': `${text}: ${targetLabel(target)}` })))) : null);
}

/* A panel that lives as long as the page. */
export async function targetsPanel({ scope, upstream }) {
	const body = h('tbody'), begun = new Map();
	let targets = upstream.targets, drawn = '';

	const draw = async () => {
		const seen = await figures(upstream.name);
		const signature = JSON.stringify([targets, [...seen]]);
		if (signature === drawn || body.contains(document.activeElement) && document.querySelector('dialog[open]'))
			return;
		drawn = signature;
		const active = body.contains(document.activeElement) ? document.activeElement.getAttribute('aria-label') : null;
		fill(body, targets.map((one) => row(upstream.name, one, seen.get(targetName(one)), begun, read)));
		if (active)
			[...body.querySelectorAll('button')].find((one) => one.getAttribute('aria-label') === active)?.focus();
	};
	const read = async () => {
		const told = await get(`upstreams/${segment(upstream.name)}/targets`);
		targets = told.items ?? told;
		await draw();
	};
	scope.on(['revision', 'health', 'ejected', 'target'], () => { read().catch(() => {}); });
	scope.every(2000, read);
	const heads = [['Target'], ['State'], ['Weight', 'end'], ['Flows', 'end'], ['Now', 'end'], ['Connects failed', 'end']];
	return h('section', { class: 'panel', 'aria-label': 'Targets' }, h('h2', {}, 'Targets now'),
		h('div', { class: 'scroll-x', tabIndex: 0, role: 'region', 'aria-label': 'Targets' }, h('table', {}, h('thead', {}, h('tr', {}, heads.map(([text, cls]) => h('th', { scope: 'col', class: cls }, text)), may('operator') ? h('th', { scope: 'col' }, 'Do') : null)), body)));
}
