/* A form in which somebody describes a packet; faults of the server stand at their fields. */
import { fill, h, id } from './dom.js';

const isNumber = (name) => /port$|^seconds$|^packets$/.test(name);

/* fields: [name, words, choices or nothing]; query: what they hold at first. send(body) is called with what was given;
 * what it throws is shown: at the field, or by otherwise(problem), which has all that has none. */
export function packetForm(fields, query, action, send, otherwise) {
	const inputs = fields.map(([name, text, choice]) => {
		const input = choice ? h('select', { id: id('e') }, choice.map((word) => h('option', { value: word }, word)))
			: h('input', { type: 'text', id: id('e'), autocomplete: 'off', spellcheck: 'false', inputmode: isNumber(name) ? 'numeric' : null });
		input.value = query.get(name) || (choice ? choice[0] : '');
		const error = h('p', { class: 'error', role: 'alert', id: id('err') });
		input.setAttribute('aria-describedby', error.id);
		return { name, text, input, error };
	});
	const body = () => Object.fromEntries(inputs.filter(({ input }) => input.value.trim()).map(({ name, input }) => {
		const value = input.value.trim();
		return [name, isNumber(name) && /^\d+$/.test(value) ? Number(value) : value];
	}));
	const form = h('form', { novalidate: true }, h('div', { class: 'fields' }, inputs.map(({ text, input, error }) => h('div', { class: 'field' }, h('label', { htmlFor: input.id }, text), input, error))),
		h('button', { type: 'submit', class: 'primary' }, action));
	form.addEventListener('submit', async (event) => {
		event.preventDefault();
		inputs.forEach(({ input, error }) => { fill(error); input.removeAttribute('aria-invalid'); });
		try {
			await send(body());
		} catch (problem) {
			const elsewhere = (problem.errors || []).filter((one) => {
				const at = inputs.find(({ name }) => one.pointer === `/${name}`);
				at?.input.setAttribute('aria-invalid', 'true');
				at?.error.append(one.detail);
				return !at;
			});
			otherwise(problem, elsewhere.length > 0 || !(problem.errors || []).length);
		}
	});
	return form;
}
