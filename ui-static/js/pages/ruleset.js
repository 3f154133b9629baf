/* The rules in the kernel, with our comments: as they are, as they should be. */
import { get } from '../api.js';
import { fill, h, id } from '../dom.js';
import { textBox } from '../diff.js';
import { head, into } from '../page.js';

export default async function ruleset({ content, scope }) {
	const format = h('select', { id: id('f') }, h('option', { value: 'applied' }, 'as the kernel has it'), h('option', { value: 'desired' }, 'as made from the configuration'));
	const place = h('div');
	const look = () => into(place, async () => textBox(await get(`ruleset?format=${format.value}`, { timeout: 60000 }), 'Ruleset'));
	format.addEventListener('change', look);
	fill(content, head('Ruleset', 'What gatewayd has in nftables. Others’ tables are not touched and not shown.'),
		h('div', { class: 'row tools' }, h('label', { htmlFor: format.id }, 'Show'), format), place);
	scope.on(['revision', 'drift'], look);
	await look();
}
