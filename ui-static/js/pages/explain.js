/* A packet that somebody thinks of: the path it would take, stage by stage, and why. */
import { Problem, request } from '../api.js';
import { badge, fill, h } from '../dom.js';
import { compact, words } from '../format.js';
import { packetForm } from '../packetform.js';
import { head, notThere, trouble } from '../page.js';

const FIELDS = [['protocol', 'Protocol', ['tcp', 'udp']], ['source', 'Source address'], ['source_port', 'Source port'],
	['destination', 'Destination address'], ['destination_port', 'Destination port'], ['interface', 'Comes in at'], ['sni', 'TLS server name'], ['alpn', 'TLS protocol (ALPN)'],
	['http_host', 'HTTP host'], ['http_method', 'HTTP method'], ['http_path', 'HTTP path']];
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
	const form = packetForm(FIELDS, query, 'Explain', async (body) => fill(place, answer((await request('POST', 'explain', { body })).data)),
		(problem, elsewhere) => fill(place, problem instanceof Problem && [404, 405].includes(problem.status) ? notThere('POST /api/v1/explain')
			: elsewhere ? trouble(problem) : null));
	fill(content, head('Explain', 'Think of a packet: which listener takes it, where it goes, and why.'), form, place);
}
