/* A packet that somebody thinks of: the path it would take, stage by stage, and why. */
import { Problem, request } from '../api.js';
import { badge, fill, h, id } from '../dom.js';
import { compact, words } from '../format.js';
import { head, notThere, trouble } from '../page.js';

const FIELDS = [['protocol', 'Protocol', ['tcp', 'udp']], ['source', 'Source address'], ['source_port', 'Source port'],
	['destination', 'Destination address'], ['destination_port', 'Destination port'], ['interface', 'Comes in at'], ['sni', 'Server name']];
const GOOD = /relay|pass|accept|allow|match|continue|direct|bypass|ok/, BAD = /drop|reject|refuse|ban|deny|fail|none/;
const TITLE = ['stage', 'name', 'where'], VERDICT = ['verdict', 'result', 'decision'], WHY = ['why', 'reason', 'detail'];

const first = (object, keys) => keys.map((key) => object[key]).find((value) => value !== undefined && value !== null);
const kindOf = (verdict) => (BAD.test(verdict) ? 'bad' : GOOD.test(verdict) ? 'good' : 'idle');

function stage(one) {
	const verdict = String(first(one, VERDICT) ?? '');
	const rest = Object.entries(one).filter(([key, value]) => ![...TITLE, ...VERDICT, ...WHY].includes(key) && value !== null && value !== '');
	return h('li', { class: `stage ${kindOf(verdict)}` }, h('div', { class: 'row' }, h('strong', {}, words(first(one, TITLE) ?? '')), verdict ? badge(words(verdict), kindOf(verdict)) : null),
		h('p', {}, first(one, WHY) ?? ''), rest.length ? h('dl', {}, rest.map(([key, value]) => [h('dt', {}, words(key)), h('dd', {}, compact(value))])) : null);
}

function answer(told) {
	const stages = told.stages ?? Object.values(told).find(Array.isArray) ?? [];
	const rest = Object.entries(told).filter(([, value]) => value !== stages);
	return [h('ol', { class: 'stages' }, stages.map(stage)),
		rest.length ? h('section', { class: 'panel' }, h('h2', {}, 'In short'), h('dl', {}, rest.map(([key, value]) => [h('dt', {}, words(key)), h('dd', {}, compact(value))]))) : null];
}

export default function explain({ content, query }) {
	const place = h('div', { role: 'status' });
	const inputs = FIELDS.map(([name, text, choice]) => {
		const input = choice ? h('select', { id: id('e') }, choice.map((word) => h('option', { value: word }, word))) : h('input', { type: 'text', id: id('e'), autocomplete: 'off', spellcheck: 'false', inputmode: /port$/.test(name) ? 'numeric' : null });
		input.value = query.get(name) || (choice ? choice[0] : '');
		const error = h('p', { class: 'error', role: 'alert', id: id('err') });
		input.setAttribute('aria-describedby', error.id);
		return { name, text, input, error };
	});
	const body = () => Object.fromEntries(inputs.filter(({ input }) => input.value.trim()).map(({ name, input }) => {
		const value = input.value.trim();
		return [name, /port$/.test(name) && /^\d+$/.test(value) ? Number(value) : value];
	}));
	const form = h('form', { novalidate: true }, h('div', { class: 'fields' }, inputs.map(({ text, input, error }) => h('div', { class: 'field' }, h('label', { htmlFor: input.id }, text), input, error))),
		h('button', { type: 'submit', class: 'primary' }, 'Explain'));
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		inputs.forEach(({ input, error }) => { fill(error); input.removeAttribute('aria-invalid'); });
		try {
			fill(place, answer((await request('POST', 'explain', { body: body() })).data));
		} catch (problem) {
			const elsewhere = (problem.errors || []).filter((one) => {
				const at = inputs.find(({ name }) => one.pointer === `/${name}`);
				at?.input.setAttribute('aria-invalid', 'true');
				at?.error.append(one.detail);
				return !at;
			});
			fill(place, problem instanceof Problem && [404, 405].includes(problem.status) ? notThere('POST /api/v1/explain')
				: elsewhere.length || !(problem.errors || []).length ? trouble(problem) : null);
		}
	});
	fill(content, head('Explain', 'Think of a packet: which listener takes it, where it goes, and why.'), form, place);
}
