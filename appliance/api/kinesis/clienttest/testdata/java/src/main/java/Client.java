import java.io.FileInputStream;
import java.math.BigInteger;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.TrustManagerFactory;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.http.ProtocolNegotiation;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.*;
import software.amazon.awssdk.services.kinesis.model.Record;

/** What a user of the AWS SDK for Java v2 does with Kinesis, end to end, against WEIR_ENDPOINT. */
public class Client {
    static final String STREAM = System.getenv("WEIR_STREAM");
    static KinesisAsyncClient client;
    static String arn;

    public static void main(String[] args) throws Exception {
        NettyNioAsyncHttpClient.Builder http = NettyNioAsyncHttpClient.builder();
        if (System.getenv("WEIR_CA") != null) http.tlsTrustManagersProvider(() -> trust().getTrustManagers());
        if (System.getenv("WEIR_NO_ALPN") != null) http.protocolNegotiation(ProtocolNegotiation.ASSUME_PROTOCOL);
        client = KinesisAsyncClient.builder().endpointOverride(URI.create(System.getenv("WEIR_ENDPOINT"))).region(Region.EU_CENTRAL_1)
            .httpClientBuilder(http).overrideConfiguration(c -> c.retryStrategy(r -> r.maxAttempts(1))).build();
        create();
        System.out.println("ok create");
        put();
        System.out.println("ok put");
        iterate();
        System.out.println("ok iterate");
        paginate();
        System.out.println("ok paginate");
        fanOut();
        System.out.println("ok fan-out");
        reshard();
        System.out.println("ok reshard");
        errors();
        System.out.println("ok errors");
        client.deleteStream(r -> r.streamName(STREAM)).join();
        client.waiter().waitUntilStreamNotExists(r -> r.streamName(STREAM)).join();
        client.close();
        System.out.println("done");
        System.exit(0);
    }

    static TrustManagerFactory trust() {
        try (FileInputStream in = new FileInputStream(System.getenv("WEIR_CA"))) {
            KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
            store.load(null, null);
            store.setCertificateEntry("weir", CertificateFactory.getInstance("X.509").generateCertificate(in));
            TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            factory.init(store);
            return factory;
        } catch (Exception e) {
            throw new RuntimeException(e);
        }
    }

    static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError(String.valueOf(what));
    }

    static SdkBytes data(int i) {
        return SdkBytes.fromString("record " + i + " \u0000\u2713", StandardCharsets.UTF_8);
    }

    static void create() {
        client.createStream(r -> r.streamName(STREAM).shardCount(2)).join();
        client.waiter().waitUntilStreamExists(r -> r.streamName(STREAM)).join();
        StreamDescriptionSummary d = client.describeStreamSummary(r -> r.streamName(STREAM)).join().streamDescriptionSummary();
        check(d.openShardCount() == 2 && d.streamStatus() == StreamStatus.ACTIVE, d);
        check(Duration.between(d.streamCreationTimestamp(), Instant.now()).abs().toHours() < 1, d.streamCreationTimestamp());
        arn = d.streamARN();
    }

    static void put() {
        String one = client.putRecord(r -> r.streamName(STREAM).data(data(0)).partitionKey("first")).join().sequenceNumber();
        String two = client.putRecord(r -> r.streamARN(arn).data(data(1)).partitionKey("first").sequenceNumberForOrdering(one)).join().sequenceNumber();
        check(new BigInteger(two).compareTo(new BigInteger(one)) > 0, two);
        List<PutRecordsRequestEntry> entries = new ArrayList<>();
        for (int i = 2; i < 500; i++) {
            int n = i;
            entries.add(PutRecordsRequestEntry.builder().data(data(n)).partitionKey("key " + n % 7 + " \u2713").build());
        }
        PutRecordsResponse out = client.putRecords(r -> r.streamName(STREAM).records(entries)).join();
        check(out.failedRecordCount() == 0 && out.records().size() == 498, out);
    }

    static List<ChildShard> children;

    static List<Record> read(String iterator) {
        List<Record> records = new ArrayList<>();
        while (iterator != null) {
            String at = iterator;
            GetRecordsResponse out = client.getRecords(r -> r.shardIterator(at).limit(100)).join();
            records.addAll(out.records());
            children = out.childShards();
            iterator = out.millisBehindLatest() == 0 ? null : out.nextShardIterator();
        }
        return records;
    }

    static void iterate() {
        Set<SdkBytes> seen = new HashSet<>();
        for (Shard shard : client.listShards(r -> r.streamName(STREAM)).join().shards()) {
            List<Record> records = read(client.getShardIterator(r -> r.streamName(STREAM).shardId(shard.shardId())
                .shardIteratorType(ShardIteratorType.TRIM_HORIZON)).join().shardIterator());
            for (Record r : records) seen.add(r.data());
            check(Duration.between(records.get(0).approximateArrivalTimestamp(), Instant.now()).abs().toHours() < 1, "arrival");
            List<Record> after = read(client.getShardIterator(r -> r.streamName(STREAM).shardId(shard.shardId())
                .shardIteratorType(ShardIteratorType.AFTER_SEQUENCE_NUMBER).startingSequenceNumber(records.get(0).sequenceNumber())).join().shardIterator());
            check(after.size() == records.size() - 1, after.size());
            List<Record> since = read(client.getShardIterator(r -> r.streamName(STREAM).shardId(shard.shardId())
                .shardIteratorType(ShardIteratorType.AT_TIMESTAMP).timestamp(Instant.EPOCH.plusSeconds(1))).join().shardIterator());
            check(since.size() == records.size(), since.size());
        }
        for (int i = 0; i < 500; i++) check(seen.contains(data(i)), "record " + i + " is missing");
    }

    static void paginate() throws Exception {
        List<String> names = new ArrayList<>();
        client.listStreamsPaginator(r -> r.limit(1)).streamNames().subscribe(names::add).get(30, TimeUnit.SECONDS);
        check(names.contains(STREAM) && names.contains("other"), names);
    }

    static void fanOut() throws Exception {
        String consumer = client.registerStreamConsumer(r -> r.streamARN(arn).consumerName("fan")).join().consumer().consumerARN();
        CompletableFuture<Void> live = new CompletableFuture<>();
        SubscribeToShardResponseHandler handler = SubscribeToShardResponseHandler.builder()
            .onError(live::completeExceptionally)
            .subscriber(SubscribeToShardResponseHandler.Visitor.builder().onSubscribeToShardEvent(e -> {
                if (e.continuationSequenceNumber() == null || e.millisBehindLatest() == null) live.completeExceptionally(new AssertionError(e.toString()));
                for (Record r : e.records()) if (r.data().asUtf8String().equals("live")) live.complete(null);
            }).build()).build();
        CompletableFuture<Void> call = client.subscribeToShard(r -> r.consumerARN(consumer).shardId("shardId-000000000000")
            .startingPosition(p -> p.type(ShardIteratorType.TRIM_HORIZON)), handler);
        client.putRecord(r -> r.streamName(STREAM).data(SdkBytes.fromUtf8String("live")).partitionKey("x").explicitHashKey("0")).join();
        live.get(30, TimeUnit.SECONDS);
        call.cancel(true);
        client.deregisterStreamConsumer(r -> r.consumerARN(consumer)).join();
    }

    static void reshard() {
        String shard = "shardId-000000000000";
        client.splitShard(r -> r.streamName(STREAM).shardToSplit(shard).newStartingHashKey("85070591730234615865843651857942052864")).join();
        read(client.getShardIterator(r -> r.streamName(STREAM).shardId(shard).shardIteratorType(ShardIteratorType.LATEST)).join().shardIterator());
        List<ChildShard> split = children;
        check(split.size() == 2 && split.get(0).parentShards().equals(List.of(shard)), split);
        client.mergeShards(r -> r.streamName(STREAM).shardToMerge(split.get(0).shardId()).adjacentShardToMerge(split.get(1).shardId())).join();
        UpdateShardCountResponse up = client.updateShardCount(r -> r.streamName(STREAM).targetShardCount(4).scalingType(ScalingType.UNIFORM_SCALING)).join();
        check(up.currentShardCount() == 2 && up.targetShardCount() == 4, up);
        int open = client.listShards(r -> r.streamName(STREAM).shardFilter(f -> f.type(ShardFilterType.AT_LATEST))).join().shards().size();
        check(open == 4, open);
    }

    static void fails(Class<?> kind, CompletableFuture<?> call) {
        try {
            call.join();
        } catch (CompletionException e) {
            check(kind.isInstance(e.getCause()), e.getCause());
            return;
        }
        throw new AssertionError("no " + kind.getSimpleName());
    }

    static void errors() {
        fails(ResourceNotFoundException.class, client.putRecord(r -> r.streamName("missing").data(data(0)).partitionKey("k")));
        fails(ResourceInUseException.class, client.createStream(r -> r.streamName(STREAM).shardCount(1)));
        fails(InvalidArgumentException.class, client.getRecords(r -> r.shardIterator("AAAAAAAAAAE=")));
        fails(ValidationException.class, client.describeStream(r -> r.streamName("no/name")));
    }
}
