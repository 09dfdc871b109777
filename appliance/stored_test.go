package appliance

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/weirhq/weir/storage"
)

func TestStoredRowsShowNoSecrets(t *testing.T) {
	const secret = "never-shown"
	inline := `{"id":12345678901234567,"config":{"stream":"s","sink":{"kind":"s3","settings":{"bucket":"b","access_key_id":"AKID","secret_access_key":"` + secret + `"}},` +
		`"error_sink":{"kind":"http","settings":{"url":"https://x","access_key":"` + secret + `"}}}}`
	for _, c := range []struct{ table, key, value, want string }{
		{"setting", "kinesis/token-key", secret, `{"table":"setting","key":"a2luZXNpcy90b2tlbi1rZXk=","name":"kinesis/token-key","value":"***"}`},
		{"setting", "kinesis/account", `{"a":1}`, `"value":{"a":1}}`},
		{"delivery", "dout", inline, `"id":12345678901234567`},
		{"delivery", "dout", inline, `"secret_access_key":"***"`},
		{"delivery", "v\x00\x00\x00\x01", inline, `"access_key":"***"`},
		{"delivery", "dout", `{"sink":{"kind":"later","settings":{"password":"` + secret + `"}}}`, `"settings":"***"`},
		{"delivery", "dout", `{"sink":{"kind":"s3","settings":{"later":"` + secret + `"}}}`, `"settings":"***"`},
		{"delivery", "xout", `half of {"secret_access_key":"` + secret, `"value":"***"`},
		{"delivery", "c\x00\x01", `{"next":7}`, `"value":{"next":7}`},
		{"lease", "a\x00b", "\x01\x02", `{"table":"lease","key":"YQBi","value":"AQI="}`},
	} {
		line, err := json.Marshal(ShowRow(storage.TableItem{Table: c.table, Key: []byte(c.key), Value: []byte(c.value)}))
		if err != nil || !strings.Contains(string(line), strings.TrimPrefix(c.want, "{")) {
			t.Errorf("%s %q: no %s in\n%s %v", c.table, c.key, c.want, line, err)
		}
		if strings.Contains(string(line), secret) || strings.Contains(string(line), "bmV2ZXItc2hvd24") {
			t.Errorf("%s %q: the secret is shown:\n%s", c.table, c.key, line)
		}
	}
}
