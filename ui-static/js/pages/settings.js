/* What concerns the gateway as a whole, and what it says of itself. */
import { get, may, Problem, request, resourceOf } from '../api.js';
import { badge, button, copyButton, fill, h, toast } from '../dom.js';
import { compact, duration, when, words } from '../format.js';
import { ask } from '../dialog.js';
import { Form } from '../form.js';
import { head } from '../page.js';
import { save } from '../save.js';

const list = (pairs) => h('dl', {}, pairs.map(([key, value]) => [h('dt', {}, key), h('dd', {}, value)]));

function about(status, tls) {
	const { relay, kernel, applied } = status;
	return list([
		['Version', status.version], ['Revision', String(status.revision)], ['Ready', badge(status.ready ? 'yes' : 'no', status.ready ? 'good' : 'bad')],
		['Applied', Object.entries(applied).map(([plane, n]) => `${plane} ${n}`).join(', ')],
		['Daemon', `up ${duration(status.uptime_s)}`], ['Relay', `${relay.state}, process ${relay.pid ?? '–'}, up ${duration(relay.uptime_s)}, ${relay.threads} threads, ${relay.restarts} restarts, ${relay.handovers} hand-overs`],
		['Mover', `${relay.mover}; ${Object.entries(relay.movers).map(([name, one]) => `${name}: ${one.state}${one.why ? ` (${one.why})` : ''}`).join(', ')}`],
		...status.interception ? [['Interception', `${status.interception.engine}${status.interception.state === 'off' ? '' : `; ebpf: ${status.interception.state}`}${status.interception.why ? ` (${status.interception.why})` : ''}`]] : [],
		['Kernel', `${kernel.release} ${kernel.machine}`],
		['Drift', status.drift ? `${status.drift.state}; put right ${status.drift.healed} times` : '–'],
		...tls ? [['Certificate', [`${compact(tls.subject)}, expires ${when(tls.expires_at)}, SHA-256 ${tls.fingerprint} `, copyButton(tls.fingerprint, 'Copy fingerprint')]]] : [],
	]);
}

async function restart() {
	if (!await ask('Start a new relay?', 'The new one takes the flows over; none is lost.', 'Start it'))
		return;
	try {
		await request('POST', 'relay/restart');
		toast('The relay hands over.', 'good');
	} catch (error) {
		toast(error instanceof Problem ? error.message : 'The gateway did not answer.', 'bad');
	}
}

export default async function settings({ content, scope }) {
	const { data, etag } = await request('GET', 'settings');
	const form = await Form.make(await resourceOf('settings'), data);
	const place = h('div'), box = h('form', { class: 'panel', novalidate: true }, h('h2', {}, 'Settings'), form.element,
		may('admin') ? h('button', { type: 'submit', class: 'primary' }, 'Review and apply') : null);
	const look = async () => fill(place, about(await get('status'), await get('tls').catch(() => null)));
	box.addEventListener('submit', async (event) => {
		event.preventDefault();
		form.clear();
		try {
			if (await save('Change settings', { method: 'PUT', path: 'settings', body: form.read(), headers: etag ? { 'If-Match': etag } : {} }))
				await settings({ content, scope });
		} catch (problem) {
			if (problem instanceof Problem)
				form.show(problem);
			else
				toast(problem.message, 'bad');
		}
	});
	fill(content, head('Settings', 'The gateway as a whole.'), box,
		h('section', { class: 'panel' }, h('h2', {}, 'This gateway'), place, h('div', { class: 'row' }, may('operator') ? button('Start a new relay', restart) : null,
			may('admin') ? h('a', { class: 'button', href: '/api/v1/backup', download: 'gateway.db' }, 'Download a backup') : null)));
	scope.every(10000, look);
}
