/*
 * Elements made in code. Whatever is given as a child and is no node becomes
 * text, never markup: names, server names and comments come from strangers.
 */

const SVG = 'http://www.w3.org/2000/svg';
/* Control characters and those that turn the direction of text: shown by their number, so that nothing can hide. */
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g;

/* The text with unseen characters made visible. */
export function visible(text) {
	return String(text).replace(UNSEEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function add(element, child) {
	if (Array.isArray(child))
		child.forEach((one) => add(element, one));
	else if (child instanceof Node)
		element.append(child);
	else if (child !== null && child !== undefined && child !== false)
		element.append(visible(child));
}

/* Properties: onX are listeners; value, checked, hidden and the like are set as properties; the rest are attributes. */
const AS_PROPERTY = new Set(['value', 'checked', 'disabled', 'hidden', 'open', 'selected', 'readOnly', 'htmlFor', 'tabIndex']);

export function h(tag, properties, ...children) {
	const element = document.createElement(tag);

	for (const [name, value] of Object.entries(properties || {})) {
		if (value === null || value === undefined || (value === false && !AS_PROPERTY.has(name)))
			continue;
		if (name.startsWith('on'))
			element.addEventListener(name.slice(2), value);
		else if (AS_PROPERTY.has(name))
			element[name] = value;
		else
			element.setAttribute(name, value === true ? '' : value);
	}
	add(element, children);
	return element;
}

/* The same for SVG. */
export function svg(tag, attributes, ...children) {
	const element = document.createElementNS(SVG, tag);

	for (const [name, value] of Object.entries(attributes || {}))
		if (value !== null && value !== undefined)
			element.setAttribute(name, value);
	add(element, children);
	return element;
}

/* Makes the children of an element these. */
export function fill(element, ...children) {
	element.replaceChildren();
	add(element, children);
	return element;
}

let ids = 0;
/* An id nobody else has. */
export function id(prefix = 'x') {
	return `${prefix}-${++ids}`;
}

/* A button. kind: "", "primary", "danger". */
export function button(text, onclick, kind = '', more = {}) {
	return h('button', { type: 'button', class: kind, onclick, ...more }, text);
}

/* Copies text; says so on the button. Falls back to a selection where there is no clipboard (plain http on a LAN). */
export function copyButton(text, label = 'Copy') {
	const made = button(label, async () => {
		try {
			await navigator.clipboard.writeText(text);
			made.textContent = 'Copied';
		} catch {
			made.textContent = 'Select it by hand';
		}
		setTimeout(() => { made.textContent = label; }, 2000);
	}, 'small');
	return made;
}

/* A word with a colour of its meaning: good, warn, bad, idle. The word says it, too. */
export function badge(word, kind) {
	return h('span', { class: `badge ${kind}` }, word);
}

/* Said to screen readers, and seen for a moment. */
export function toast(text, kind = '') {
	let place = document.getElementById('toasts');
	if (!place) {
		place = h('div', { id: 'toasts', role: 'status' });
		document.body.append(place);
	}
	const note = h('div', { class: `toast ${kind}` }, text);
	place.append(note);
	setTimeout(() => note.remove(), 6000);
}
