/* Modal dialogs: a promise of what was chosen. The browser's own element keeps the focus inside and gives it back. */
import { button, h, id } from './dom.js';

/*
 * content: children. buttons: [{text, kind, value}] or with onclick(close). Escape is null. fixed: cannot be escaped.
 */
export function dialog({ title, content, buttons, wide, fixed }) {
	return new Promise((resolve) => {
		const heading = id('title');
		let value = null;
		const close = (chosen) => {
			value = chosen;
			box.close();
		};
		const row = (buttons || []).map((one) =>
			button(one.text, () => (one.onclick ? one.onclick(close) : close(one.value)), one.kind || ''));
		const box = h('dialog', { class: wide ? 'wide' : '', 'aria-labelledby': heading },
			h('h2', { id: heading }, title), h('div', { class: 'dialog-body', tabIndex: -1 }, content),
			row.length ? h('div', { class: 'row end' }, row) : null);
		box.settle = close;
		box.addEventListener('cancel', (event) => { if (fixed) event.preventDefault(); });
		box.addEventListener('close', () => {
			box.remove();
			if (fixed && value === null)
				return dialog({ title, content, buttons, wide, fixed }).then(resolve);
			return resolve(value);
		});
		document.body.append(box);
		box.showModal();
	});
}

/* Yes or no. */
export const ask = (title, text, yes, kind = 'primary') =>
	dialog({ title, content: h('p', {}, text), buttons: [{ text: 'Cancel', value: false }, { text: yes, kind, value: true }] });
