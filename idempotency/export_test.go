package idempotency

// Internals that the tests of keys and stored responses use.
var (
	ParseKey   = parseKey
	AppendHead = appendHead
	Room       = room
)

// Seal completes a response that is stored under key.
func Seal(b []byte, key Key) { seal(b, 0, &key) }

// ReadResponse returns the parts of the response that is stored under key.
func ReadResponse(b []byte, key Key) (status int, header, body []byte, err error) {
	r, err := readResponse(b, &key)
	return r.status, r.header, r.body, err
}

// Bytes returns the total size of the stored responses.
func (m *Memory) Bytes() int64 { return m.bytes.Load() }

// ClaimID names the claim of e.
func (e *Execution) ClaimID() ClaimID { return ClaimID{e.key, e.token} }

// Leases returns how many leases are kept.
func (m *Middleware) Leases() int { return m.heartbeat.Len() }

// Pending returns how many results are pending, and the bytes of their responses.
func (m *Middleware) Pending() (n, bytes int) {
	m.pending.mu.Lock()
	defer m.pending.mu.Unlock()
	return len(m.pending.of), m.pending.bytes
}

// Waiting returns how many requests wait, and how many entries there are for them.
func (m *Middleware) Waiting() int {
	m.waiters.mu.Lock()
	defer m.waiters.mu.Unlock()
	return int(m.waiters.count.Load()) + len(m.waiters.flights) + len(m.waiters.owners)
}
