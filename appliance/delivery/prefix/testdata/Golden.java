// Writes java-golden.tsv: what java.time.format.DateTimeFormatter makes of each
// pattern, zone and instant. Run: java testdata/Golden.java > testdata/java-golden.tsv
import java.time.*;
import java.time.format.DateTimeFormatter;
import java.util.Locale;

public class Golden {
    public static void main(String[] args) {
        String[] patterns = {
            "yyyy/MM/dd/HH/", "yyyy", "yy", "y", "yyyyy", "u", "uu", "uuuu", "YYYY", "YYYY-'W'ww", "Y", "w",
            "Q", "QQ", "QQQ", "QQQQ", "q", "M", "MM", "MMM", "MMMM", "MMMMM", "L", "LL", "d", "dd", "D", "DDD",
            "E", "EE", "EEE", "EEEE", "EEEEE", "e", "ee", "eee", "eeee", "eeeee", "c", "ccc", "cccc",
            "a", "h", "hh", "K", "KK", "H", "HH", "k", "kk", "m", "mm", "s", "ss", "S", "SSS", "SSSSSSSSS", "n", "A",
            "VV", "Z", "ZZZ", "ZZZZ", "ZZZZZ", "X", "XX", "XXX", "XXXX", "XXXXX", "x", "xx", "xxx", "xxxx", "xxxxx",
            "yyyy-MM-dd'T'HH:mm:ss.SSSXXX", "'year='yyyy'/it''s'/MM", "''yyyy''", "hh 'o''clock' a",
        };
        String[] zones = {"UTC", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "America/St_Johns"};
        String[] instants = {
            "2018-08-27T10:30:00Z", "2024-12-29T00:00:00Z", "2024-12-31T23:59:59.999Z", "2025-01-01T00:00:00Z",
            "2023-01-01T12:00:00Z", "2022-12-31T12:00:00Z", "2026-01-03T04:05:06.007008009Z", "2024-02-29T05:00:00Z",
            "2000-01-01T00:00:00Z", "1999-12-31T13:01:00Z",
        };
        for (String p : patterns) {
            DateTimeFormatter f = DateTimeFormatter.ofPattern(p, Locale.US);
            for (String z : zones)
                for (String i : instants)
                    System.out.println(p + "\t" + z + "\t" + i + "\t" + f.format(Instant.parse(i).atZone(ZoneId.of(z))));
        }
    }
}
