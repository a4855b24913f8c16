package usherpg_test

import (
	"testing"
	"time"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/internal/nodes"
)

func TestRequestsWhileTheServerFails(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "fsync=on")
	server := nodes.RecordServer{
		Open: func(t testing.TB) idempotency.Store { return c.open(t).Idempotency() },
		Faults: []func(){
			func() { c.cut(t) },
			func() { c.each((*servers.Proxy).Reset) },
			func() { c.server.Kill(); c.server.Start() },
			func() {
				resume := c.server.Pause()
				time.Sleep(400 * time.Millisecond)
				resume()
			},
			func() {
				unblock := c.block(t)
				time.Sleep(400 * time.Millisecond)
				unblock()
			},
		},
	}
	t.Run("payments are made once", func(t *testing.T) { nodes.TestPayments(t, server) })
	t.Run("duplicates wait for the response", func(t *testing.T) { nodes.TestDuplicates(t, server) })
}

func TestRequestsOnceTheDiskIsFull(t *testing.T) {
	_, pool := migrated(t)
	nodes.TestFull(t, open(t, pool).Idempotency(),
		func() {
			exec(t, pool, `CREATE FUNCTION full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF TG_OP = 'INSERT' OR NEW.payload IS NOT NULL THEN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END IF; RETURN NEW; END $$`)
			exec(t, pool, `CREATE TRIGGER "full" BEFORE INSERT OR UPDATE ON usher.records FOR EACH ROW EXECUTE FUNCTION "full"()`)
		},
		func() { exec(t, pool, `DROP TRIGGER "full" ON usher.records`) })
}
