/* The first visit: three steps that end with traffic seen. */
import { get, may, Problem } from '../api.js';
import { badge, fill, h, id } from '../dom.js';
import { bytes, count } from '../format.js';
import { head } from '../page.js';
import { save } from '../save.js';

const lines = (text) => text.split(/[\s,]+/).filter(Boolean);

function field(text, hint, input) {
	const doc = id('doc');
	input.setAttribute('aria-describedby', doc);
	return h('div', { class: 'field' }, h('label', { htmlFor: input.id }, text), input, h('p', { class: 'hint', id: doc }, hint));
}

const textInput = (value = '') => h('input', { type: 'text', id: id('s'), value, autocomplete: 'off', spellcheck: 'false' });

/* Looks until the listener has had traffic. */
function watch(scope, name, place, step) {
	fill(place, h('p', {}, badge('waiting', 'warn'), ` No traffic for “${name}” so far. Connect from a client to an address behind the gateway, for example:`),
		h('div', { class: 'text-box' }, h('pre', {}, 'curl http://SERVER:PORT/')));
	scope.every(1000, async () => {
		const seen = (await get('stats?limit=200')).listeners.find((one) => one.name === name);
		if (!seen || !seen.flows_opened && !seen.refused)
			return;
		step.classList.add('done');
		fill(place, h('p', {}, badge(seen.flows_opened ? 'traffic seen' : 'refused', seen.flows_opened ? 'good' : 'bad'),
			` ${count(seen.flows_opened)} connections, ${bytes(seen.bytes_to_target + seen.bytes_to_client)} moved, ${count(seen.refused)} refused. `,
			h('a', { href: '#/' }, 'See the picture'), ' or ', h('a', { href: '#/flows' }, 'the flows'), '.'));
	});
}

export default async function start({ content, scope }) {
	const listeners = await get('listeners?limit=1');
	const inputs = { interface: textInput(), name: textInput('web'), ports: textInput('80'), destinations: textInput() };
	const protocol = h('select', { id: id('s') }, ['tcp', 'udp'].map((word) => h('option', { value: word }, word)));
	const error = h('div', { class: 'error', role: 'alert' }), test = h('div', { role: 'status' }, h('p', { class: 'hint' }, 'Comes after the listener is made.'));
	const steps = [
		h('li', { class: 'panel' }, h('h2', {}, '1 Where do clients come in?'), h('div', { class: 'fields' }, field('Interface', 'Name of the interface towards the clients, e.g. eth1. Empty: any.', inputs.interface))),
		h('li', { class: 'panel' }, h('h2', {}, '2 What is to be intercepted?'), h('div', { class: 'fields' },
			field('Name', '1 to 63 of a-z 0-9 -', inputs.name), h('div', { class: 'field' }, h('label', { htmlFor: protocol.id }, 'Protocol'), protocol),
			field('Ports', 'As the clients ask for, e.g. 80 443 8000-8100.', inputs.ports), field('Destinations', 'Addresses or prefixes of the servers; empty: all but the gateway’s own.', inputs.destinations)), error,
		h('button', { type: 'submit', class: 'primary', disabled: !may('admin') }, 'Review and make the listener')),
		h('li', { class: 'panel' }, h('h2', {}, '3 Does it work?'), test),
	];
	const form = h('form', { novalidate: true }, h('ol', { class: 'steps' }, steps));
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		fill(error);
		const name = inputs.name.value.trim();
		try {
			const answer = await save('The first listener', { method: 'POST', path: 'listeners', body: { name, protocol: protocol.value, ports: lines(inputs.ports.value),
				interfaces: lines(inputs.interface.value), destinations: lines(inputs.destinations.value) } });
			if (!answer)
				return;
			steps[0].classList.add('done');
			steps[1].classList.add('done');
			watch(scope, name, test, steps[2]);
		} catch (problem) {
			if (!(problem instanceof Problem))
				throw problem;
			fill(error, h('ul', {}, (problem.errors.length ? problem.errors : [{ detail: problem.message }]).map((one) => h('li', {}, `${one.pointer || ''} ${one.detail}`))));
			(inputs[problem.errors[0]?.pointer?.split('/')[1]] || inputs.name).focus();
		}
	});
	fill(content, head('First steps', 'From nothing to traffic through the gateway, in three steps. The machine must forward packets and lie on the path in both directions.'),
		listeners.total ? h('p', { class: 'note' }, `There are listeners already (${listeners.total}); this page adds one. `, h('a', { href: '#/listeners' }, 'See them'), '.') : null, form);
	if (listeners.total === 1)
		watch(scope, listeners.items[0].name, test, steps[2]);
}
