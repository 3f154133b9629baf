/*
 * Forms made from the table of a resource (GET /schema): a control for each
 * field with its doc below it. Faults come from the server with a JSON pointer
 * and are shown at the field they point to; a field that the server gets
 * tomorrow has its control without a line here.
 */
import { resourceOf, get } from './api.js';
import { button, fill, h, id } from './dom.js';
import { words } from './format.js';

/* What is in sight at once; the rest is one click away, and open when it differs from its default. */
const FIRST = {
	listener: ['name', 'enabled', 'comment', 'protocol', 'interfaces', 'sources', 'destinations', 'ports', 'action', 'upstream', 'rate_limits'],
	upstream: ['name', 'comment', 'algorithm', 'targets', 'health'],
	target: ['address', 'port', 'weight', 'admin_state'],
	rate_limit: ['name', 'comment', 'key', 'metric', 'rate', 'per', 'burst', 'action', 'ban_s', 'mode', 'escalate'],
	prefilter: ['interface', 'enabled', 'comment', 'mode', 'deny', 'allow', 'source_pps'],
	listener_route: ['sni', 'http_host', 'action', 'upstream'],
};
const CHOICES_MAX = 1000; /* names offered for a reference; others can be typed */

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
const lines = (text) => text.split(/[\n,]/).map((one) => one.trim()).filter(Boolean);

/* --- one control for each kind: {element, control, read(), path} --- */

function input(field, value, type, more = {}) {
	const control = h('input', { type, value: value ?? '', autocomplete: 'off', spellcheck: 'false', ...more });
	return { control, read: () => control.value };
}

function nameList(target) {
	const list = h('datalist', { id: id('names') });
	if (target)
		get(`${target.path}?limit=${CHOICES_MAX}`).then((page) => fill(list, page.items.map((one) => h('option', { value: one.name })))).catch(() => {});
	return list;
}

const EXAMPLE = {
	interface: 'eth1', prefix: '10.0.0.0/8 or @set', ports: '443 or 8000-8100', host: 'www.example.com or *.example.com',
	alpn: 'h2', method: 'GET', path: '/api/',
};

function listControl(field, value) {
	const rows = Math.min(8, Math.max(2, (value || []).length + 1));
	const control = h('textarea', { rows, value: (value || []).join('\n'), spellcheck: 'false', autocomplete: 'off' });
	return { control, read: () => lines(control.value), hint: `One a line${EXAMPLE[field.item] ? `, e.g. ${EXAMPLE[field.item]}` : ''}.` };
}

function enumControl(field, value) {
	const control = h('select', {}, field.words.map((word) => h('option', { value: word }, words(word))));
	control.value = value ?? field.default ?? field.words[0];
	return { control, read: () => control.value };
}

function intControl(field, value) {
	const made = input(field, value, 'text', { inputmode: 'numeric' });
	made.hint = `${field.min} to ${field.max}`;
	made.read = () => {
		const text = made.control.value.trim();
		return text === '' ? undefined : /^-?\d{1,15}$/.test(text) ? Number(text) : text;
	};
	return made;
}

function boolControl(field, value) {
	const control = h('input', { type: 'checkbox', checked: Boolean(value) });
	return { control, read: () => control.checked };
}

function refControl(field, value, target) {
	const made = input(field, value, 'text');
	const list = nameList(target);
	made.control.setAttribute('list', list.id);
	made.extra = list;
	made.read = () => made.control.value.trim() || null;
	return made;
}

function timeControl(field, value) {
	const made = input(field, value, 'text');
	made.hint = 'UTC, e.g. 2030-01-31T12:00:00Z; empty: never';
	made.read = () => made.control.value.trim() || null;
	return made;
}

function textControl(field, value) {
	return input(field, value, 'text', field.max ? { maxlength: String(field.max) } : {});
}

async function controlOf(field, value) {
	switch (field.kind) {
	case 'bool': return boolControl(field, value);
	case 'int': return intControl(field, value);
	case 'enum': return enumControl(field, value);
	case 'ref': return refControl(field, value, await resourceOf(field.target));
	case 'list': case 'names': case 'prefixes': return listControl(field, value);
	case 'time': return timeControl(field, value);
	default: return textControl(field, value);
	}
}

/* --- fields in their place --- */

class Field {
	static async make(field, value, locked) {
		const made = new Field();
		made.field = field;
		made.initial = value;
		made.path = `/${field.group ? `${field.group}/` : ''}${field.name}`;
		made.part = await controlOf(field, value);
		made.build(locked);
		return made;
	}

	build(locked) {
		const { control, hint, extra } = this.part;
		const doc = id('doc'), fault = id('fault');
		this.error = h('p', { class: 'error', id: fault, role: 'alert' });
		control.id = id('f');
		control.setAttribute('aria-describedby', `${doc} ${fault}`);
		control.dataset.pointer = this.path;
		if (locked)
			control.readOnly = true;
		if (this.field.required)
			control.setAttribute('aria-required', 'true');
		const label = h('label', { htmlFor: control.id }, words(this.field.name), this.field.required ? h('span', { class: 'must' }, ' required') : null);
		this.element = h('div', { class: `field kind-${this.field.kind}` },
			this.field.kind === 'bool' ? h('div', { class: 'check' }, control, label) : [label, control], extra,
			h('p', { class: 'hint', id: doc }, hint ? [hint, /[.?]$/.test(hint) ? ' ' : '. '] : null, this.field.doc), this.error);
		control.addEventListener('input', () => this.clear());
	}

	read() { return this.part.read(); }
	clear() { fill(this.error); this.part.control.removeAttribute('aria-invalid'); }

	fault(rest, detail) {
		const item = /^\/(\d+)$/.exec(rest);
		const list = Array.isArray(this.read()) ? this.read() : [];
		this.part.control.setAttribute('aria-invalid', 'true');
		this.error.append(h('span', {}, item && list[item[1]] !== undefined ? `“${list[item[1]]}”: ${detail}` : detail));
	}

	focus() { this.part.control.focus(); }
	changed() { return !same(this.read() ?? null, this.field.default ?? null); }
}

/* A list of objects (targets, routes): a form for each, that can be added, removed and moved. */
class Children {
	static async make(field, value) {
		const made = new Children();
		made.field = field;
		made.path = `/${field.name}`;
		made.resource = await resourceOf(field.target);
		made.items = [];
		made.list = h('ol', { class: 'children' });
		made.error = h('p', { class: 'error', role: 'alert' });
		for (const one of value || [])
			await made.add(one);
		made.element = h('fieldset', { class: 'whole' }, h('legend', {}, words(field.name)),
			h('p', { class: 'hint' }, field.doc), made.list, made.error,
			button(`Add ${words(field.target)}`, async () => (await made.add({})).focus()));
		return made;
	}

	async add(value) {
		const form = await Form.make(this.resource, value, { nested: true });
		const item = h('li', {}, form.element, h('div', { class: 'row' },
			button('Up', () => this.move(form, -1), 'small'), button('Down', () => this.move(form, 1), 'small'),
			button('Remove', () => this.remove(form), 'small danger')));
		form.item = item;
		this.items.push(form);
		this.list.append(item);
		return form;
	}

	remove(form) {
		this.items.splice(this.items.indexOf(form), 1);
		form.item.remove();
	}

	move(form, by) {
		const from = this.items.indexOf(form), to = from + by;
		if (to < 0 || to >= this.items.length)
			return;
		this.items.splice(to, 0, ...this.items.splice(from, 1));
		fill(this.list, this.items.map((one) => one.item));
	}

	read() { return this.items.map((form) => form.read()); }
	clear() { fill(this.error); this.items.forEach((form) => form.clear()); }

	fault(rest, detail) {
		const item = /^\/(\d+)(\/.*)?$/.exec(rest);
		if (item && this.items[item[1]])
			this.items[item[1]].fault(item[2] || '', detail);
		else
			this.error.append(h('span', {}, detail));
	}

	focus() { this.items[0]?.focus(); }
	changed() { return this.items.length > 0; }
}

export class Form {
	/* value: the object to begin with; locked: names of fields that are not to be changed; nested: inside another. */
	static async make(resource, value, { locked = [], nested = false, skip = [] } = {}) {
		const form = new Form();
		form.resource = resource;
		form.parts = [];
		form.general = h('p', { class: 'error', role: 'alert' });
		for (const field of resource.fields.filter((one) => !skip.includes(one.name))) {
			const own = field.group ? value[field.group]?.[field.name] : value[field.name];
			const start = own === undefined ? field.default : own;
			form.parts.push(field.kind === 'children' ? await Children.make(field, start)
				: await Field.make(field, start, locked.includes(field.name)));
		}
		form.build(nested);
		return form;
	}

	build(nested) {
		const first = FIRST[this.resource.name];
		const isFirst = (part) => !first || first.includes(part.field.group || part.field.name);
		const rank = (part) => (first ? first.indexOf(part.field.group || part.field.name) : 0);
		const shown = this.parts.filter(isFirst).sort((a, b) => rank(a) - rank(b));
		const rest = this.parts.filter((part) => !isFirst(part));
		this.more = rest.length ? h('details', { class: 'whole', open: rest.some((part) => part.changed()) },
			h('summary', {}, 'More options'), h('div', { class: 'fields' }, grouped(rest))) : null;
		this.element = h('div', { class: nested ? 'form nested' : 'form' }, this.general,
			h('div', { class: 'fields' }, grouped(shown)), this.more);
	}

	/* The object as it is to be sent; what is empty and has a default is left to the server. */
	read() {
		const object = {};
		for (const part of this.parts) {
			const value = part.read();
			if (value === undefined)
				continue;
			if (part.field.group)
				(object[part.field.group] = object[part.field.group] || {})[part.field.name] = value;
			else
				object[part.field.name] = value;
		}
		return object;
	}

	clear() {
		fill(this.general);
		this.parts.forEach((part) => part.clear());
	}

	/* One fault, at the field with the longest path that the pointer begins with. */
	fault(pointer, detail) {
		const fits = this.parts.filter((part) => pointer === part.path || pointer.startsWith(`${part.path}/`));
		const part = fits.sort((a, b) => b.path.length - a.path.length)[0];
		if (!part) {
			this.general.append(h('span', {}, `${pointer ? `${pointer}: ` : ''}${detail}`));
			return null;
		}
		if (this.more?.contains(part.element))
			this.more.open = true;
		part.fault(pointer.slice(part.path.length), detail);
		return part;
	}

	/* All faults of a Problem; the first one gets the focus. */
	show(problem) {
		this.clear();
		const parts = problem.errors.map((one) => this.fault(one.pointer || '', one.detail));
		if (!problem.errors.length)
			this.general.append(h('span', {}, problem.message));
		parts.find(Boolean)?.focus();
	}

	focus() { this.parts[0]?.focus(); }
	changed() { return true; }
}

/* Fields of one group stand in a fieldset. */
function grouped(parts) {
	const out = [], groups = new Map();
	for (const part of parts) {
		const { group } = part.field;
		if (!group) {
			out.push(part.element);
			continue;
		}
		if (!groups.has(group)) {
			groups.set(group, h('div', { class: 'fields' }));
			out.push(h('fieldset', { class: 'whole' }, h('legend', {}, words(group)), groups.get(group)));
		}
		groups.get(group).append(part.element);
	}
	return out;
}
