package session

// CallsDirectly reports whether m calls its store and its revocations without a guard.
func CallsDirectly(m *Manager) bool {
	_, store := m.store.(guardedStore)
	_, revoker := m.revocations.(guardedRevoker)
	return !store && !revoker
}
