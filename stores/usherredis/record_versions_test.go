package usherredis_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/usher-go/usher/idempotency"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/stores/internal/nodes"
)

// olderRecords runs the scripts of the version before Find and Delete.
type olderRecords struct {
	t      *testing.T
	client rueidis.Client
	prefix string
}

func (s *olderRecords) run(ctx context.Context, script string, keys []idempotency.Key, args ...string) (rueidis.RedisMessage, error) {
	text, err := os.ReadFile("testdata/" + script + "_1.lua")
	if err != nil {
		s.t.Fatal(err)
	}
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = "{" + s.prefix + "}:record:" + string(k.Owner[:]) + string(k.Name[:])
	}
	m, err := s.client.Do(ctx, s.client.B().Eval().Script(string(text)).Numkeys(int64(len(names))).Key(names...).Arg(args...).Build()).ToMessage()
	if err != nil && strings.HasPrefix(err.Error(), "LOST") {
		err = idempotency.ErrLost
	}
	return m, err
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }

func (s *olderRecords) Claim(ctx context.Context, c idempotency.Claim) (r idempotency.Record, err error) {
	m, err := s.run(ctx, "claim", []idempotency.Key{c.Key}, "", string(c.Token[:]), string(c.Fingerprint[:]), micros(c.Lease), micros(c.TTL))
	if err != nil {
		return r, err
	}
	reply, err := m.ToArray()
	if err != nil {
		return r, err
	}
	won, err := reply[0].ToInt64()
	lease, err2 := reply[1].ToInt64()
	value, err3 := reply[2].ToString()
	if err := errors.Join(err, err2, err3); err != nil {
		return r, err
	}
	r.State, r.Won, r.Lease = idempotency.State(value[1]), won == 1, time.Duration(lease)*time.Microsecond
	copy(r.Fingerprint[:], value[18:])
	r.Generation = binary.BigEndian.Uint64([]byte(value[50:58]))
	r.Status, r.Payload = int(binary.BigEndian.Uint32([]byte(value[66:70]))), []byte(value[74:])
	return r, nil
}

func (s *olderRecords) Renew(ctx context.Context, claims []idempotency.ClaimID, lease time.Duration) (lost []idempotency.ClaimID, err error) {
	keys, args := make([]idempotency.Key, len(claims)), []string{"", micros(lease)}
	for i, c := range claims {
		keys[i] = c.Key
		args = append(args, string(c.Token[:]))
	}
	m, err := s.run(ctx, "extend", keys, args...)
	if err != nil {
		return nil, err
	}
	renewed, err := m.AsIntSlice()
	for i, n := range renewed {
		if n == 0 {
			lost = append(lost, claims[i])
		}
	}
	return lost, err
}

func (s *olderRecords) Finish(ctx context.Context, c idempotency.Completion) (idempotency.State, error) {
	r := &c.Result
	m, err := s.run(ctx, "finish", []idempotency.Key{c.Key}, string(c.Token[:]), strconv.Itoa(int(r.State)), strconv.Itoa(r.Status), micros(r.TTL), string(r.Payload))
	if err != nil {
		return 0, err
	}
	kept, err := m.ToInt64()
	return idempotency.State(kept), err
}

// While a service is deployed, programs of two versions share its records.
func TestProgramsOfTwoVersionsShareRecords(t *testing.T) {
	s := servers.Redis(t)
	prefix := newPrefix()
	nodes.TestRecords(t, &olderRecords{t, connect(t, s.Addr), prefix}, open(t, s.Addr, prefix).Idempotency())
}
