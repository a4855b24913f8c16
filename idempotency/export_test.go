package idempotency

// What the tests of stored answers and of keys reach into.
var (
	ParseKey   = parseKey
	AppendHead = appendHead
	Room       = room
)

// Seal ends a response that is stored under key.
func Seal(b []byte, key Key) { seal(b, 0, &key) }

// ReadAnswer returns what can be read of the response that is stored under key.
func ReadAnswer(b []byte, key Key) (status int, header, body []byte, err error) {
	a, err := readAnswer(b, &key)
	return a.status, a.header, a.body, err
}

// Bytes returns how many bytes of answers are held.
func (m *Memory) Bytes() int64 { return m.bytes.Load() }

// Leases returns how many leases are being kept.
func (m *Middleware) Leases() int {
	m.heartbeat.mu.Lock()
	defer m.heartbeat.mu.Unlock()
	return len(m.heartbeat.beats)
}

// Debts returns how many results are owed, and the bytes of their responses.
func (m *Middleware) Debts() (n, bytes int) {
	m.debts.mu.Lock()
	defer m.debts.mu.Unlock()
	return len(m.debts.of), m.debts.bytes
}
