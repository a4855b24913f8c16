package idempotency

// What the tests of stored answers and of keys reach into.
var (
	ParseKey   = parseKey
	AppendHead = appendHead
	Seal       = seal
	Room       = room
)

// ReadAnswer returns what can be read of a stored answer.
func ReadAnswer(b []byte) (status int, header, body []byte, err error) {
	a, err := readAnswer(b)
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
